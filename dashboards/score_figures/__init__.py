"""Draw scores beside FID: a user's own, proxies, and those of the judges' examinations; one file per figure."""
