"""The REST API under `/api`: paths and shapes of Seqera Studios' API, and Portico's own additions in the same style."""
