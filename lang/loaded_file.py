"""A file of programs that a session has loaded: run again on request, and watched for changes on disk."""

from __future__ import annotations

import linecache
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .loading import Loaded, load_file

_Stamp = tuple[int, int]


@dataclass(slots=True)
class LoadedFile:
    """A path, what it was loaded as, and the names that it gave. A package is watched by its `__init__.py`."""

    path: Path
    loaded: Loaded
    names: dict[str, Any]
    _loaded_stamp: _Stamp | None = field(init=False)
    _told_stamp: _Stamp | None = field(init=False)

    def __post_init__(self) -> None:
        self._loaded_stamp = self._told_stamp = self._stamp()

    @property
    def has_changed(self) -> bool:
        """Whether the file on disk is another one than was loaded."""
        return self._stamp() != self._loaded_stamp

    def has_new_change(self) -> bool:
        """The same, but true only once for each change."""
        before, self._told_stamp = self._told_stamp, self._stamp()
        return self.has_changed and before != self._told_stamp

    def reload(self) -> Loaded:
        """Run the file again, and what is in its folder if it is a package. Raises as load_file does."""
        name = self.loaded.module.__name__
        own = [each for each in sys.modules if each == name or each.startswith(f"{name}.")]
        before = {each: sys.modules.pop(each) for each in own}
        linecache.checkcache()
        try:
            return load_file(self.path)
        except BaseException:
            sys.modules.update(before)
            raise

    def _stamp(self) -> _Stamp | None:
        try:
            stat = Path(self.loaded.module.__file__ or self.path).stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size
