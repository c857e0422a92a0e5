"""Archives and tables, as datasets come in them."""

import io
import json
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet


def archive_of(file, members):
    """An archive of the kind that its name says; a member is (name or header, content)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return file
    kind = {".tar": "", ".tgz": "gz"}.get(file.suffix, file.suffix[1:])
    with tarfile.open(file, f"w:{kind}") as archive:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = member.size or len(content)
            archive.addfile(member, io.BytesIO(content) if content else None)
    return file


def with_classes(table, column, names):
    """The parquet table as Hugging Face writes it: with the names of a column's whole numbers."""
    info = {"info": {"features": {column: {"names": names, "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def in_two_tables(table, folder, split):
    """A split as two parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    half = len(table) // 2
    for i, part in enumerate((table[:half], table[half:])):
        pyarrow.parquet.write_table(part, folder / f"{split}-{i:05d}-of-00002.parquet")
