"""Pure functions of arrays, the building blocks of the other packages."""
