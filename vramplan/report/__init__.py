"""Renderers: values in, text or pages out."""
