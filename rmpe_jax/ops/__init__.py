"""Pure operations on arrays that everything else is made of."""
