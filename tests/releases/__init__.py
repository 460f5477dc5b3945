"""Tests of the release facts and of the extractor that makes them."""
