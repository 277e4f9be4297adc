"""`rmpe predict`: from image and video files to files of poses."""
