"""The tenant's knowledge base: documents are read, cut into chunks, embedded, searched and quoted with their source."""
