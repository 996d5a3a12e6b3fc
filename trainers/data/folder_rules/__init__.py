"""What the files of a folder of pictures are: masks, and tables of labels."""
