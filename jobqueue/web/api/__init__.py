"""The HTTP API: each operation is declared once; routes, documents and checks follow from that."""
