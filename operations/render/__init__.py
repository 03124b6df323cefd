"""Rendering: values in, text out, as tables, pages, SVG and JSON documents. Nothing is read or decided here."""
