//! Lays a graph out in layers from left to right: each node right of all before it (its layer is the longest way to
//! it), nodes within a layer ordered so that few edges cross (barycentres, swept to and fro, the best order kept), and
//! placed as near to their neighbours as their order and sizes allow.
//!
//! Nodes of one cluster stay together within a layer, so that a box around them seldom holds strangers. An edge over
//! several layers goes through a waypoint in each, which takes part in the ordering like a node.

/// A node to place. Lengths are in pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub width: f64,
    pub height: f64,
    /// The clusters around it, the outermost first.
    pub clusters: Vec<usize>,
}

/// A point, in pixels from the top left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// The top left corner of each node.
    pub nodes: Vec<Point>,
    /// The points that each edge goes through, from its start to its end.
    pub edges: Vec<Vec<Point>>,
    pub width: f64,
    pub height: f64,
}

const LAYER_GAP: f64 = 52.0;
const NODE_GAP: f64 = 16.0;
/// The room above a cluster's members for its border and label, for each level of clusters.
pub(super) const CLUSTER_TOP: f64 = 18.0;
/// The room below, and at the sides of, a cluster's members for its border, for each level.
pub(super) const CLUSTER_SIDE: f64 = 6.0;
const MARGIN: f64 = 16.0;
const ORDER_SWEEPS: usize = 12;
const PLACE_SWEEPS: usize = 8;

/// A node or a waypoint.
struct Vertex {
    layer: usize,
    width: f64,
    height: f64,
    clusters: Vec<usize>,
    before: Vec<usize>,
    after: Vec<usize>,
}

/// Lays out `nodes` with `edges` (from, to) between them, which must not form a circle.
pub(super) fn lay_out(nodes: &[Node], edges: &[(usize, usize)]) -> Layout {
    let (vertices, chains) = vertices(nodes, edges);
    let mut layers = vec![Vec::new(); vertices.iter().map(|vertex| vertex.layer + 1).max().unwrap_or(0)];
    for (at, vertex) in vertices.iter().enumerate() {
        layers[vertex.layer].push(at);
    }
    order(&mut layers, &vertices);
    let depth = as_number(nodes.iter().map(|node| node.clusters.len()).max().unwrap_or(0));
    let side = MARGIN + CLUSTER_SIDE * depth;
    let tops = place(&layers, &vertices, MARGIN + CLUSTER_TOP * depth);
    let (lefts, widths) = columns(&layers, &vertices, side);

    let positions: Vec<Point> =
        (0..nodes.len()).map(|at| Point { x: lefts[vertices[at].layer], y: tops[at] }).collect();
    let middle = |at: usize| tops[at] + vertices[at].height / 2.0;
    let edges = chains
        .iter()
        .map(|chain| {
            let (first, last) = (chain[0], chain[chain.len() - 1]);
            let from = vertices[first].layer;
            let mut points = vec![Point { x: lefts[from] + vertices[first].width, y: middle(first) }];
            // A narrow node's edges turn only behind its layer, so that they do not cross wider ones.
            points.push(Point { x: lefts[from] + widths[from], y: middle(first) });
            for &waypoint in &chain[1..chain.len() - 1] {
                let layer = vertices[waypoint].layer;
                points.push(Point { x: lefts[layer], y: middle(waypoint) });
                points.push(Point { x: lefts[layer] + widths[layer], y: middle(waypoint) });
            }
            points.push(Point { x: lefts[vertices[last].layer], y: middle(last) });
            points
        })
        .collect();
    let width = lefts.iter().zip(&widths).map(|(left, width)| left + width).fold(0.0, f64::max) + side;
    let height = (0..vertices.len()).map(|at| tops[at] + vertices[at].height).fold(0.0, f64::max) + side;
    Layout { nodes: positions, edges, width, height }
}

/// The layer of each node: the longest way to it.
fn layers_of(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layer = vec![0; count];
    let mut waiting = vec![0_usize; count];
    let mut after = vec![Vec::new(); count];
    for &(from, to) in edges {
        after[from].push(to);
        waiting[to] += 1;
    }
    let mut ready: Vec<usize> = (0..count).filter(|&at| waiting[at] == 0).collect();
    while let Some(from) = ready.pop() {
        for &to in &after[from] {
            layer[to] = layer[to].max(layer[from] + 1);
            waiting[to] -= 1;
            if waiting[to] == 0 {
                ready.push(to);
            }
        }
    }
    layer
}

/// The nodes followed by the waypoints, and for each edge the vertices that it goes through.
fn vertices(nodes: &[Node], edges: &[(usize, usize)]) -> (Vec<Vertex>, Vec<Vec<usize>>) {
    let layer = layers_of(nodes.len(), edges);
    let mut vertices: Vec<Vertex> = nodes
        .iter()
        .zip(&layer)
        .map(|(node, &layer)| Vertex {
            layer,
            width: node.width,
            height: node.height,
            clusters: node.clusters.clone(),
            before: Vec::new(),
            after: Vec::new(),
        })
        .collect();
    let mut chains = Vec::with_capacity(edges.len());
    for &(from, to) in edges {
        let shared = nodes[from].clusters.iter().zip(&nodes[to].clusters).take_while(|(a, b)| a == b).count();
        let mut chain = vec![from];
        for between in layer[from] + 1..layer[to] {
            chain.push(vertices.len());
            vertices.push(Vertex {
                layer: between,
                width: 0.0,
                height: 2.0,
                clusters: nodes[from].clusters[..shared].to_vec(),
                before: Vec::new(),
                after: Vec::new(),
            });
        }
        chain.push(to);
        for pair in chain.windows(2) {
            vertices[pair[0]].after.push(pair[1]);
            vertices[pair[1]].before.push(pair[0]);
        }
        chains.push(chain);
    }
    (vertices, chains)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

#[expect(clippy::cast_precision_loss, reason = "A layer has far fewer than 2^52 vertices.")]
fn as_number(at: usize) -> f64 {
    at as f64
}

/// Orders each layer so that few edges cross.
fn order(layers: &mut Vec<Vec<usize>>, vertices: &[Vertex]) {
    for layer in 0..layers.len() {
        sort_layer(layers, layer, vertices, None);
    }
    let mut best = layers.clone();
    let mut fewest = crossings(layers, vertices);
    for sweep in 0..ORDER_SWEEPS {
        if fewest == 0 {
            break;
        }
        let forward = sweep % 2 == 0;
        let count = layers.len();
        for step in 1..count {
            let layer = if forward { step } else { count - 1 - step };
            sort_layer(layers, layer, vertices, Some(forward));
        }
        let found = crossings(layers, vertices);
        if found < fewest {
            fewest = found;
            best.clone_from(layers);
        }
    }
    *layers = best;
}

/// Sorts one layer by where its vertices' neighbours stand (`None`: by where they stand already), clusters kept
/// together.
fn sort_layer(layers: &mut [Vec<usize>], layer: usize, vertices: &[Vertex], forward: Option<bool>) {
    let ranks = |layer: &[usize]| {
        let mut ranks = std::collections::BTreeMap::new();
        for (rank, &at) in layer.iter().enumerate() {
            ranks.insert(at, as_number(rank));
        }
        ranks
    };
    let own = ranks(&layers[layer]);
    let neighbours = match forward {
        None => None,
        Some(true) => Some(ranks(&layers[layer - 1])),
        Some(false) => Some(ranks(&layers[layer + 1])),
    };
    let wish = |at: usize| -> f64 {
        let near = if forward == Some(true) { &vertices[at].before } else { &vertices[at].after };
        neighbours
            .as_ref()
            .and_then(|ranks| mean(near.iter().filter_map(|near| ranks.get(near).copied())))
            .unwrap_or_else(|| own.get(&at).copied().unwrap_or_default())
    };
    let wishes: std::collections::BTreeMap<usize, f64> =
        layers[layer].iter().map(|&at| (at, wish(at))).collect();
    let key = |at: usize| -> Vec<(f64, usize)> {
        let clusters = &vertices[at].clusters;
        let mut key: Vec<(f64, usize)> = clusters
            .iter()
            .enumerate()
            .map(|(depth, &cluster)| {
                let members = layers[layer]
                    .iter()
                    .filter(|&&other| vertices[other].clusters.get(depth) == Some(&cluster))
                    .map(|other| wishes[other]);
                (mean(members).unwrap_or_default(), cluster)
            })
            .collect();
        key.push((wishes[&at], usize::MAX));
        key
    };
    let mut keyed: Vec<(Vec<(f64, usize)>, usize)> = layers[layer].iter().map(|&at| (key(at), at)).collect();
    keyed.sort_by(|(a, _), (b, _)| {
        a.iter()
            .zip(b)
            .map(|(a, b)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    layers[layer] = keyed.into_iter().map(|(_, at)| at).collect();
}

/// How many pairs of edges between neighbouring layers cross.
fn crossings(layers: &[Vec<usize>], vertices: &[Vertex]) -> usize {
    let mut rank = vec![0; vertices.len()];
    for layer in layers {
        for (at, &vertex) in layer.iter().enumerate() {
            rank[vertex] = at;
        }
    }
    let mut total = 0;
    for pair in layers.windows(2) {
        let mut ends: Vec<usize> = Vec::new();
        for &from in &pair[0] {
            let mut to: Vec<usize> = vertices[from].after.iter().map(|&to| rank[to]).collect();
            to.sort_unstable();
            ends.extend(to);
        }
        // A Fenwick tree counts, for each end, the earlier ones that lie behind it.
        let mut tree = vec![0_usize; pair[1].len() + 1];
        for (seen, &end) in ends.iter().enumerate() {
            let mut not_behind = 0;
            let mut at = end + 1;
            while at > 0 {
                not_behind += tree[at];
                at -= at & at.wrapping_neg();
            }
            total += seen - not_behind;
            let mut at = end + 1;
            while at < tree.len() {
                tree[at] += 1;
                at += at & at.wrapping_neg();
            }
        }
    }
    total
}

/// How far apart the middles of two neighbours in a layer must be.
fn separation(one: &Vertex, other: &Vertex) -> f64 {
    let shared = one.clusters.iter().zip(&other.clusters).take_while(|(a, b)| a == b).count();
    let borders = one.clusters.len().max(other.clusters.len()) - shared;
    let gap = if one.width == 0.0 && other.width == 0.0 { NODE_GAP / 2.0 } else { NODE_GAP };
    f64::midpoint(one.height, other.height) + gap + (CLUSTER_TOP + CLUSTER_SIDE) * as_number(borders)
}

/// The top of each vertex, the topmost at `margin`.
fn place(layers: &[Vec<usize>], vertices: &[Vertex], margin: f64) -> Vec<f64> {
    let mut middle = vec![0.0; vertices.len()];
    for layer in layers {
        let mut y = 0.0;
        for (at, &vertex) in layer.iter().enumerate() {
            if at > 0 {
                y += separation(&vertices[layer[at - 1]], &vertices[vertex]);
            }
            middle[vertex] = y;
        }
    }
    for sweep in 0..PLACE_SWEEPS {
        let forward = sweep % 2 == 0;
        for step in 0..layers.len() {
            let layer = &layers[if forward { step } else { layers.len() - 1 - step }];
            let wishes: Vec<f64> = layer
                .iter()
                .map(|&at| {
                    let near = if forward { &vertices[at].before } else { &vertices[at].after };
                    mean(near.iter().map(|&near| middle[near])).unwrap_or(middle[at])
                })
                .collect();
            for (&at, y) in layer.iter().zip(settle(layer, vertices, &wishes)) {
                middle[at] = y;
            }
        }
    }
    let top =
        (0..vertices.len()).map(|at| middle[at] - vertices[at].height / 2.0).fold(f64::INFINITY, f64::min);
    (0..vertices.len()).map(|at| middle[at] - vertices[at].height / 2.0 - top + margin).collect()
}

/// The middles nearest to the wishes (least squares) that keep the order and the separations: pool adjacent violators
/// over the wishes less what must lie between.
fn settle(layer: &[usize], vertices: &[Vertex], wishes: &[f64]) -> Vec<f64> {
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(layer.len());
    let mut pools: Vec<(f64, f64)> = Vec::new();
    for (at, wish) in wishes.iter().enumerate() {
        if at > 0 {
            offset += separation(&vertices[layer[at - 1]], &vertices[layer[at]]);
        }
        offsets.push(offset);
        let mut pool = (wish - offset, 1.0);
        while let Some(&(value, weight)) = pools.last()
            && value > pool.0
        {
            pools.pop();
            pool = ((value * weight + pool.0 * pool.1) / (weight + pool.1), weight + pool.1);
        }
        pools.push(pool);
    }
    let mut settled = Vec::with_capacity(layer.len());
    for (value, weight) in pools {
        let upto = as_number(settled.len()) + weight;
        while as_number(settled.len()) < upto - 0.5 {
            settled.push(value + offsets[settled.len()]);
        }
    }
    settled
}

/// The left border and the width of each layer.
fn columns(layers: &[Vec<usize>], vertices: &[Vertex], margin: f64) -> (Vec<f64>, Vec<f64>) {
    let widths: Vec<f64> =
        layers.iter().map(|layer| layer.iter().map(|&at| vertices[at].width).fold(0.0, f64::max)).collect();
    let mut left = margin;
    let lefts = widths
        .iter()
        .map(|width| {
            let here = left;
            left += width + LAYER_GAP;
            here
        })
        .collect();
    (lefts, widths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(clusters: &[usize]) -> Node {
        Node { width: 100.0, height: 30.0, clusters: clusters.to_vec() }
    }

    fn overlaps(a: (Point, &Node), b: (Point, &Node)) -> bool {
        a.0.x < b.0.x + b.1.width
            && b.0.x < a.0.x + a.1.width
            && a.0.y < b.0.y + b.1.height
            && b.0.y < a.0.y + a.1.height
    }

    #[test]
    fn a_diamond_is_symmetric_and_flows_from_left_to_right() {
        let nodes = vec![node(&[]); 4];
        let layout = lay_out(&nodes, &[(0, 1), (0, 2), (1, 3), (2, 3)]);
        insta::assert_debug_snapshot!(layout.nodes.iter().map(|p| (p.x, p.y)).collect::<Vec<_>>(), @r"
        [
            (
                16.0,
                39.0,
            ),
            (
                168.0,
                16.0,
            ),
            (
                168.0,
                62.0,
            ),
            (
                320.0,
                39.0,
            ),
        ]
        ");
    }

    #[test]
    fn a_knot_of_edges_is_untangled() {
        // 0→5, 1→4, 2→3 cross as given; no crossing is needed.
        let nodes = vec![node(&[]); 6];
        let layout = lay_out(&nodes, &[(0, 5), (1, 4), (2, 3)]);
        for (from, to) in [(0, 5), (1, 4), (2, 3)] {
            assert!((layout.nodes[from].y - layout.nodes[to].y).abs() < 0.01, "{layout:?}");
        }
    }

    #[test]
    fn no_nodes_make_an_empty_picture() {
        let layout = lay_out(&[], &[]);
        assert!(layout.nodes.is_empty() && layout.edges.is_empty());
    }

    proptest! {
        #[test]
        fn nodes_never_overlap_and_edges_always_go_right(
            count in 1_usize..30,
            pairs in prop::collection::vec((0_usize..30, 0_usize..30), 0..60),
            clusters in prop::collection::vec(0_usize..4, 30),
        ) {
            let nodes: Vec<Node> = (0..count)
                .map(|at| if clusters[at] == 0 { node(&[]) } else { node(&[clusters[at]]) })
                .collect();
            let mut edges: Vec<(usize, usize)> =
                pairs.into_iter().filter(|(a, b)| a < b && *b < count).collect();
            edges.sort_unstable();
            edges.dedup();
            let layout = lay_out(&nodes, &edges);
            for a in 0..count {
                for b in 0..a {
                    prop_assert!(!overlaps((layout.nodes[a], &nodes[a]), (layout.nodes[b], &nodes[b])));
                }
                prop_assert!(layout.nodes[a].x >= 0.0 && layout.nodes[a].y >= 0.0);
                prop_assert!(layout.nodes[a].x + 100.0 <= layout.width && layout.nodes[a].y + 30.0 <= layout.height);
            }
            for (points, (from, to)) in layout.edges.iter().zip(&edges) {
                prop_assert!(layout.nodes[*from].x + 100.0 < layout.nodes[*to].x);
                prop_assert!(points.windows(2).all(|pair| pair[0].x <= pair[1].x));
            }
        }
    }
}
