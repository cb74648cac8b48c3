"""The page that a finished run is read by: words, tables, inline SVG, and a few lines of script."""
