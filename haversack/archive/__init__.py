"""Zip archives: reading members in place from any source of byte ranges, and writing archives."""
