"""Files on any fsspec URL: listing, shards, manifests, Parquet parts, the ledger."""
