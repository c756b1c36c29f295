"""A batch of users as sparse binary rows, in the forms that the tensor code needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SparseRows:
    """B binary rows over I items.

    offsets: [B + 1] int64, where each row begins in `items`.
    items: [nnz] int64 item codes, row after row.
    """

    offsets: Tensor
    items: Tensor
    n_items: int

    @classmethod
    def from_csr(cls, matrix: csr_matrix, device: torch.device | str = "cpu") -> SparseRows:
        """Take the pattern of a scipy CSR matrix [B, I]; its values are not read."""
        offsets = torch.from_numpy(matrix.indptr.astype(np.int64))
        items = torch.from_numpy(matrix.indices.astype(np.int64))
        return cls(offsets.to(device), items.to(device), matrix.shape[1])

    @property
    def n_rows(self) -> int:
        """B."""
        return self.offsets.numel() - 1

    @cached_property
    def lengths(self) -> Tensor:
        """[B] int64, rows' number of items."""
        return self.offsets.diff()

    @cached_property
    def row(self) -> Tensor:
        """[nnz] int64, the row of each entry."""
        return torch.repeat_interleave(self.lengths)

    @cached_property
    def flat(self) -> Tensor:
        """[nnz] int64, each entry's index in a flattened dense [B, I] array."""
        return self.row * self.n_items + self.items

    def block(self, rows: slice) -> SparseRows:
        """Some consecutive rows."""
        offsets = self.offsets[rows.start : rows.stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return SparseRows(offsets - first, self.items[first:last], self.n_items)

    def take(self, rows: Tensor) -> SparseRows:
        """Some rows [n], in the order given."""
        return self.pick(rows, self.items)[0]

    def pick(self, rows: Tensor, values: Tensor) -> tuple[SparseRows, Tensor]:
        """Some rows [n] in the order given, and their entries' values."""
        offsets, entries = self._entries(rows)
        return SparseRows(offsets, self.items[entries], self.n_items), values[entries]

    def _entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets [n + 1] of these rows among themselves, and the indices of their entries among all."""
        lengths = self.lengths[rows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        first = torch.repeat_interleave(self.offsets[rows] - offsets[:-1], lengths)
        return offsets, first + torch.arange(len(first), device=first.device)

    def sum_by_row(self, values: Tensor) -> Tensor:
        """Sum one value per entry, [nnz], into one per row, [B]."""
        return values.new_zeros(self.n_rows).index_add_(0, self.row, values)

    def unit_values(self, dtype: torch.dtype) -> Tensor:
        """[nnz] entries of each row divided by its Euclidean norm: 1 / sqrt(length)."""
        return self.lengths.to(dtype).rsqrt()[self.row]

    def transposed(self) -> tuple[SparseRows, Tensor]:
        """The same entries as I rows over B columns, and their order among this one's entries, [nnz]."""
        order = torch.argsort(self.items, stable=True)
        counts = torch.bincount(self.items, minlength=self.n_items)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return SparseRows(offsets, self.row[order], self.n_rows), order

    def gather_sum(self, table: Tensor, values: Tensor) -> Tensor:
        """This sparse [B, I] matrix, entries `values` [nnz], times a dense table [I, H] -> [B, H]."""
        return F.embedding_bag(self.items, table, self.offsets[:-1], mode="sum", per_sample_weights=values)
