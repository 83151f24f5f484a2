"""The layout of a shard's contribution to the report: a JSON-able dict.

    schema            int, the layout's version
    shard             str, partition key (absent from the sum of several shards)
    rows_in, kept, dropped, quarantined    int; rows_in = kept + dropped + quarantined
    groups            {group: [{name, kept, dropped, partial}]}   one for each of GROUPS; name may
                             be null, or OTHERS; partial: some of its rows may be among OTHERS
    drop_reasons      [{rule, behavior, rows}]           why the dropped were dropped
    quarantine        {reason: rows}
    queries           {sample_id: rows}                  of queries that are samples themselves
    truncated         {teacher, encoder, teacher_measured}   rows
    behaviors         {behavior: {
        rule                 the decision rule, as a dict
        rows                 scored samples
        lowest, highest      float, null without rows
        histogram            [{label, beyond, counts}]   one count for each bin of BIN_EDGES;
                             `beyond` is the exact number of samples past the threshold; label
                             may be null, or OTHERS
        top                  the TOP highest samples, highest first
        above, below         the NEAR samples either side of the cut, nearest first }}

"Past the threshold" means score > threshold for an unwanted behavior and score >= threshold for a
wanted one, whatever a reviewer or another rule then decided. A listed sample holds sample_id,
file, row, label, decision, reason, score, percentile, prompt, response (excerpts) and best_query
{sample_id, prompt, response}.
"""

import numpy as np

SCHEMA = 4
TOP = 20
NEAR = 10
BIN_EDGES = (np.arange(101) - 50) / 50
"""Edges (101,) of the score bins, step 0.02; each bin holds its lower edge, the last also 1."""

COUNTS = ("rows_in", "kept", "dropped", "quarantined")
TRUNCATED = ("teacher", "encoder", "teacher_measured")
