"""The FAQ and its index: loading, cleaning, Korean text, embedding, Milvus."""
