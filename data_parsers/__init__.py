"""nerfstudio data parsers: one file per data layout."""
