"""`rmpe predict`: from files to files."""
