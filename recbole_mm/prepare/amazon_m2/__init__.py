"""Amazon-M2, from the files of KDD Cup 2023."""
