"""Draw other scores than FID, the judges' examinations, and the times of learnt samplers; one file per figure."""
