"""Ingestion: from files of logs to shards: finding and cutting files, staging them in workers, splitting by task."""
