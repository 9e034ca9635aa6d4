"""Sources of images: folders, files, archives, data sets, and tables of payload fields."""
