"""Jobs over many images: shards of an input, computed on Ray Data, each written to one Parquet file."""
