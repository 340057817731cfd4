"""Fetch images and pages from the web: safe from hostile URLs, polite, mindful of opt-outs, never hung."""

from crossgrain.collect.fetch.config import FetchConfig
from crossgrain.collect.fetch.download import fetch_file
from crossgrain.collect.fetch.politeness import Fetched, Request
from crossgrain.collect.fetch.session import fetch_all

__all__ = ["FetchConfig", "Fetched", "Request", "fetch_all", "fetch_file"]
