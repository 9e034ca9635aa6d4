"""Sources of images: folders, files, archives, data sets, and tables of payload fields."""

from lookalike.indexer.sources.file_list import FileList, common_folder, names_below, read_list
from lookalike.indexer.sources.mnist import MnistImage
from lookalike.indexer.sources.payload_tables import numeric_fields, person_name, read_payload, read_tables
from lookalike.indexer.sources.place import file_below, leads_out
from lookalike.indexer.sources.source import (
    Item,
    Source,
    SourceFilter,
    SourceList,
    Sources,
    as_path,
    as_sources,
    as_text,
    item_id,
    merge_roots,
    name_of_root,
    person_pattern,
    with_root_name,
)
from lookalike.indexer.sources.tar import Contained, Member, Refused, located, read_members

__all__ = [
    "Contained",
    "FileList",
    "Item",
    "Member",
    "MnistImage",
    "Refused",
    "Source",
    "SourceFilter",
    "SourceList",
    "Sources",
    "as_path",
    "as_sources",
    "as_text",
    "common_folder",
    "file_below",
    "item_id",
    "leads_out",
    "located",
    "merge_roots",
    "name_of_root",
    "names_below",
    "numeric_fields",
    "person_name",
    "person_pattern",
    "read_list",
    "read_members",
    "read_payload",
    "read_tables",
    "with_root_name",
]
