"""Data sets as their owners keep them: layouts, lists, images, labels."""
