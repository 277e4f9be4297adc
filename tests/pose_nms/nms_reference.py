"""Pose NMS as the paper and the two published codes state it, in plain NumPy and float64.

One function per source, sharing nothing but the loop over references. Each returns
({kept index: (keypoints, joint scores, person score)}, cluster of every pose, margin): the margin
is how closely the least clear of all comparisons with the threshold was decided.
"""

import numpy as np


def paper(keypoints, scores, bboxes, bbox_scores, sigma1=0.01, sigma2=2.08, lam=2.08, eta=22.48):
    """Section 3.2, with d > eta: box regions, squared distances, nothing merged."""

    def similarity(i, j):
        w, h = bboxes[i, 2] - bboxes[i, 0], bboxes[i, 3] - bboxes[i, 1]
        total = 0.0
        for n in range(keypoints.shape[1]):
            dx, dy = keypoints[j, n] - keypoints[i, n]
            if abs(dx) <= w / 20 and abs(dy) <= h / 20:
                total += np.tanh(scores[i, n] / sigma1) * np.tanh(scores[j, n] / sigma1)
            total += lam * np.exp(-(dx**2 + dy**2) / (max(w, h) / 10) ** 2 / sigma2)
        return total, 0

    clusters, margin = eliminate(scores, similarity, eta, matches_needed=None)
    kept = {i: (keypoints[i], scores[i], bbox_scores[i] * scores[i].mean()) for i in set(clusters)}
    return kept, clusters, margin


def rmpe(keypoints, scores, bboxes, bbox_scores, delta1=0.01, delta2=2.08, mu=2.08, gamma=22.48):
    """The release: discs, distances in tenths of the longer side, merging with the top score."""
    reference_distance = 0.1 * np.max(bboxes[:, 2:] - bboxes[:, :2], axis=1)

    def similarity(i, j):
        dist = np.linalg.norm(keypoints[i] - keypoints[j], axis=1)
        dist = dist / reference_distance[i]
        sure = np.tanh(scores[i] / delta1) * np.tanh(scores[j] / delta1)
        return sure[dist <= 1].sum() + mu * np.exp(-dist / delta2).sum(), 0

    clusters, margin = eliminate(scores, similarity, gamma, matches_needed=None)
    kept = {}
    for i in set(clusters):
        members = np.flatnonzero(clusters == i)
        dist = np.linalg.norm(keypoints[members] - keypoints[i], axis=2)
        pose, joint_scores = keypoints[i].copy(), np.zeros(len(scores[i]))
        for n in range(len(pose)):
            near = members[dist[:, n] <= reference_distance[i]]
            if scores[near, n].sum() > 0:
                pose[n] = np.average(keypoints[near, n], axis=0, weights=scores[near, n])
            joint_scores[n] = scores[near, n].max()
        kept[i] = pose, joint_scores, joint_scores.mean()
    return kept, clusters, margin


def alphapose(keypoints, scores, bboxes, bbox_scores):
    """AlphaPose 0.6: distances in pixels, five matches eliminate, merging within 15 pixels."""
    scores = np.where(scores == 0, 1e-5, scores)
    reference_distance = 0.1 * np.max(bboxes[:, 2:] - bboxes[:, :2], axis=1)

    def similarity(i, j):
        dist = np.linalg.norm(keypoints[i] - keypoints[j], axis=1)
        sure = np.tanh(scores[i]) * np.tanh(scores[j])
        matches = (dist <= min(reference_distance[i], 7)).sum()
        return sure[dist <= 1].sum() + 1.7 * np.exp(-dist / 2.65).sum(), matches

    clusters, margin = eliminate(scores, similarity, 22.48, matches_needed=5)
    kept = {}
    for i in set(clusters):
        members = np.flatnonzero(clusters == i)
        near = np.linalg.norm(keypoints[members] - keypoints[i], axis=2)
        near = near <= min(reference_distance[i], 15)
        s = np.where(near, scores[members], 0)
        pose = (s[..., None] * keypoints[members]).sum(0) / s.sum(0)[:, None]
        joint_scores = (s**2).sum(0) / s.sum(0)
        margin = min(margin, abs(joint_scores.max() - 0.3))
        if scores[i].max() >= 0.3 and joint_scores.max() >= 0.3:
            person_score = joint_scores.mean() + bbox_scores[i] + 1.25 * joint_scores.max()
            kept[i] = pose, joint_scores, person_score
    return kept, clusters, margin


def rmpe_body(keypoints, scores, bboxes, bbox_scores):
    """The release's rule, its similarity on COCO's joints alone; all joints are merged."""
    reference_distance = 0.1 * np.max(bboxes[:, 2:] - bboxes[:, :2], axis=1)

    def similarity(i, j):
        dist = np.linalg.norm(keypoints[i, :17] - keypoints[j, :17], axis=1)
        dist = dist / reference_distance[i]
        sure = np.tanh(scores[i, :17] / 0.01) * np.tanh(scores[j, :17] / 0.01)
        return sure[dist <= 1].sum() + 2.08 * np.exp(-dist / 2.08).sum(), 0

    return eliminate(scores, similarity, 22.48, matches_needed=None)


def alphapose_whole_body(keypoints, scores, bboxes, bbox_scores):
    """Means over body, face and hands, times their factors; 3 matches eliminate."""
    scores = np.where(scores == 0, 1e-5, scores)
    reference_distance = 0.15 * np.max(bboxes[:, 2:] - bboxes[:, :2], axis=1)
    body = keypoints.shape[1] - 110
    parts = ((slice(0, body), 1, 1, 1), (slice(body, -42), 1.9, 1, 1))
    parts = (*parts, (slice(-42, None), 0.55, 0.1, 1.5))

    def similarity(i, j):
        dist = np.linalg.norm(keypoints[i] - keypoints[j], axis=1)
        sure = np.where(dist <= 1, np.tanh(scores[i]) * np.tanh(scores[j]), 0)
        near, matches = np.exp(-dist / 8), dist <= min(reference_distance[i], 7)
        total = sum(
            factor * (in_k * sure[part].mean() + 1.65 * in_h * near[part].mean())
            for part, factor, in_k, in_h in parts
        )
        return total, sum(factor * matches[part].sum() for part, factor, _, _ in parts)

    return eliminate(scores, similarity, 3.6, matches_needed=3)


def eliminate(scores, similarity, threshold, matches_needed):
    """The greedy loop: which reference each pose goes with."""
    clusters = np.full(len(scores), -1)
    remaining = list(range(len(scores)))
    margin = np.inf
    while remaining:
        i = remaining[int(np.argmax(scores[remaining].mean(axis=1)))]
        gone = []
        for j in remaining:
            value, matches = similarity(i, j)
            margin = min(margin, abs(value - threshold)) if j != i else margin
            enough = matches_needed is not None and matches >= matches_needed
            if j == i or value > threshold or enough:
                gone.append(j)
        clusters[gone] = i
        remaining = [j for j in remaining if j not in gone]
    return clusters, margin
