"""Downloads that continue where they broke off, and are put in place only when their checksum holds."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from buttress.errors import UserError

TIMEOUT = 60  # seconds without a byte
RANGE_NOT_SATISFIABLE = 416


def cache_folder() -> Path:
    """Where downloads are kept: ``$BUTTRESS_DATA``, or the operating system's cache folder for buttress."""
    import pooch

    return Path(os.environ.get("BUTTRESS_DATA") or pooch.os_cache("buttress"))


def fetch(url: str, md5: str, folder: Path) -> Path:
    """The file at ``url``, from ``folder`` if it is there, otherwise downloaded into it.

    A download that breaks off stays beside it as ``NAME.part``; the next call goes on from there.

    Args:
        url: what to get; its last part is the file's name.
        md5: the published checksum, in hexadecimal.
        folder: where to keep the file; made if it is missing.

    Raises:
        UserError: naming the url and what is kept, when the download fails or the checksum does not hold.
    """
    import pooch

    name = url.rsplit("/", 1)[-1]
    download = ResumableDownload(folder / f"{name}.part")
    try:
        return Path(pooch.retrieve(url, known_hash=f"md5:{md5}", fname=name, path=folder, downloader=download))
    except UserError:
        raise
    except ValueError as error:  # pooch's answer to a checksum that differs; it has removed the file
        raise UserError(f"{url}: expected a file with md5 {md5}, got another one; it is not kept, try again") from error
    except OSError as error:
        raise UserError(f"{url}: the download cannot be stored in {folder}: {error.strerror or error}") from error


class ResumableDownload:
    """A downloader for pooch that collects the file in ``part`` and asks by HTTP Range for what is missing.

    Args:
        part: the file that holds what has come so far.
    """

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """Download ``url`` to ``output_file``; pooch then checks the checksum.

        Raises:
            UserError: when the download stops before the end.
        """
        total, reason = None, "the connection was closed"
        try:
            total = self._receive(url)
        except (OSError, HTTPException) as error:
            cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            total, reason = -1, str(cause)
        if total is not None and self._size() != total:
            progress = (
                f"{self._size()} bytes are kept in {self.part}, ask again to go on" if self._size() else "nothing came"
            )
            raise UserError(f"{url}: the download failed ({reason}); {progress}, or give the files by data_dir")
        self.part.replace(output_file)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _receive(self, url: str) -> int | None:
        """Append what is missing to the part; returns how long the whole file is, if the server says so."""
        have = self._size()
        request = urllib.request.Request(url, headers={"User-Agent": "buttress"})
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            with error:
                if have and error.code == RANGE_NOT_SATISFIABLE:
                    return have  # nothing is missing, or it is another file: the checksum will tell
                raise
        with response:
            if response.status != 206:  # the server sends the whole file again
                have = 0
            with self.part.open("ab" if have else "wb") as out:
                shutil.copyfileobj(response, out, 1 << 20)
            length = response.headers.get("Content-Length")
        return have + int(length) if length else None
