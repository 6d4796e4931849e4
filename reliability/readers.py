"""Every reader of the package."""

from __future__ import annotations

from reliability.bad_images import IMAGES
from reliability.bad_records import RECORDS
from reliability.bad_shipped import SHIPPED
from reliability.bad_tables import TABLES
from reliability.bad_weights import WEIGHTS
from reliability.reader import Reader

READERS: tuple[Reader, ...] = (*WEIGHTS, *IMAGES, *RECORDS, *TABLES, *SHIPPED)
"""All readers; their valid files are made on demand."""
