"""CLEAR MOT, IDF1 and HOTA as loops over everything that is possible, for a few people."""

import itertools

import numpy as np

from rmpe_jax.evaluation.identity import FrameSimilarities


def random_video(seed, num_frames=7, most=3):
    """Frames with up to `most` people and as many tracks; similarities favor a few pairs."""
    rng = np.random.default_rng(seed)
    liking = rng.uniform(0, 1, (most + 1, most + 3))
    frames = []
    for _ in range(num_frames):
        gt_ids = rng.permutation(most + 1)[: rng.integers(0, most + 1)]
        ids = rng.permutation(most + 3)[: rng.integers(0, most + 1)]
        similar = liking[np.ix_(gt_ids, ids)] * rng.uniform(0.3, 1.2, (len(gt_ids), len(ids)))
        frames.append(FrameSimilarities(gt_ids, ids, np.clip(similar, 0, 1)))
    return frames


def matchings(num_rows, num_columns):
    """All ways to pair some rows with different columns, as lists of pairs."""
    for count in range(min(num_rows, num_columns) + 1):
        for rows in itertools.combinations(range(num_rows), count):
            for columns in itertools.permutations(range(num_columns), count):
                yield list(zip(rows, columns, strict=True))


def clear(frames, threshold=0.5):
    """(people, matches, false positives, switches)."""
    last, counts = {}, np.zeros(4, int)
    for gt_ids, ids, similar in frames:
        gt_ids, ids = gt_ids.tolist(), ids.tolist()
        kept = []
        for r, person in enumerate(gt_ids):
            if last.get(person) in ids:
                c = ids.index(last[person])
                if similar[r, c] >= threshold and c not in [column for _, column in kept]:
                    kept.append((r, c))
        rows = [r for r in range(len(gt_ids)) if r not in [pair[0] for pair in kept]]
        columns = [c for c in range(len(ids)) if c not in [pair[1] for pair in kept]]
        best = max(
            (
                [(rows[a], columns[b]) for a, b in matching]
                for matching in matchings(len(rows), len(columns))
                if all(similar[rows[a], columns[b]] >= threshold for a, b in matching)
            ),
            key=lambda pairs: (len(pairs), sum(similar[pair] for pair in pairs)),
        )
        for r, c in best:
            counts[3] += last.get(gt_ids[r], ids[c]) != ids[c]
            last[gt_ids[r]] = ids[c]
        matched = len(kept) + len(best)
        counts[:3] += len(gt_ids), matched, len(ids) - matched
    return tuple(counts.tolist())


def idf1(frames, threshold=0.5):
    people = sorted({i for frame in frames for i in frame.gt_ids.tolist()})
    tracks = sorted({i for frame in frames for i in frame.ids.tolist()})

    def agreeing(person, track):
        return sum(
            person in gt_ids and track in ids
            and similar[gt_ids.tolist().index(person), ids.tolist().index(track)] >= threshold
            for gt_ids, ids, similar in frames
        )  # fmt: skip

    table = np.array([[agreeing(p, t) for t in tracks] for p in people]).reshape(len(people), -1)
    best = max(sum(table[pair] for pair in m) for m in matchings(*table.shape))
    return 2 * best / sum(len(frame.gt_ids) + len(frame.ids) for frame in frames)


def hota(frames):
    """HOTA, DetA and AssA, each the mean over the thresholds."""
    together, people, tracks = {}, {}, {}
    for gt_ids, ids, similar in frames:
        for r, person in enumerate(gt_ids.tolist()):
            people[person] = people.get(person, 0) + 1
            for c, track in enumerate(ids.tolist()):
                total = similar[r].sum() + similar[:, c].sum() - similar[r, c]
                share = similar[r, c] / total if total else 0
                together[person, track] = together.get((person, track), 0) + share
        for track in ids.tolist():
            tracks[track] = tracks.get(track, 0) + 1
    chosen = []
    for gt_ids, ids, similar in frames:

        def weight(pair, gt_ids=gt_ids, ids=ids, similar=similar):
            person, track = int(gt_ids[pair[0]]), int(ids[pair[1]])
            shared = together[person, track]
            return similar[pair] * shared / (people[person] + tracks[track] - shared)

        best = max(matchings(len(gt_ids), len(ids)), key=lambda m, w=weight: sum(map(w, m)))
        chosen += [(int(gt_ids[r]), int(ids[c]), similar[r, c]) for r, c in best]
    rows = []
    for alpha in np.arange(1, 20) / 20:
        pairs = [(person, track) for person, track, value in chosen if value >= alpha]
        found = sum(people.values()) + sum(tracks.values()) - len(pairs)
        jaccards = [
            pairs.count(pair) / (people[pair[0]] + tracks[pair[1]] - pairs.count(pair))
            for pair in pairs
        ]
        rows.append((len(pairs) / found, np.mean(jaccards) if pairs else 0.0))
    det, ass = np.array(rows).T
    return np.sqrt(det * ass).mean(), det.mean(), ass.mean()
