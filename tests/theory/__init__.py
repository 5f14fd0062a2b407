"""What theory says of the methods, by the product's own functions, on tables with exact sums."""
