"""The report of a training, as a page."""

import html


COLOURS = ("#3465a4", "#888", "#c17d11")


def report(name, begins, found):
    """The figures, NDCG@10 along the held-out part, and what the model looks at."""
    without = {"blend": "blend", "fixed": "fixed weights"}[begins]
    strongest = sorted(found["importance"].items(), key=lambda item: -item[1])[:15]
    most = strongest[0][1] or 1.0
    bars = "".join(
        f'<tr><td>{html.escape(name)}</td><td><div style="width:{300 * value / most:.0f}px"></div></td></tr>' for name, value in strongest)
    measures = {what: found[key] for what, key in (("NDCG@10", "ndcg_10"), ("AUC", "auc")) if found[key]["model"] is not None}
    return page(name, found, measures, {"model": "model", "blend": without}) + f"<h2>What it looks at</h2><table>{bars}</table></html>\n"


def report_towers(name, found):
    """The figures, and NDCG@10 along the held-out part."""
    measures = {"recall@50": found["recall_50"], "NDCG@10": found["ndcg_10"]}
    ways = {"model": "model", "near": "taken soon after", "popular": "taken most"}
    return page(name, found, measures, ways, f", over {found['items']} items", " of the better of the two others") + "</html>\n"


def page(name, found, measures, ways, over="", of=""):
    """A page without any script, but for its end."""
    tenths = found["tenths"]
    top = max(max(tenths[way]) for way in ways) or 1.0

    def line(values, colour):
        points = " ".join(f"{40 + 60 * n:.0f},{170 - 150 * value / top:.1f}" for n, value in enumerate(values))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    rows = "".join(f"<tr><td>{what}</td>" + "".join(f"<td>{values[way]:.4f}</td>" for way in ways) + "</tr>" for what, values in measures.items())
    heads = "".join(f"<th>{called}</th>" for called in ways.values())
    lines = "\n".join(line(tenths[way], colour) for way, colour in reversed(list(zip(ways, COLOURS))))
    legend = ", ".join(f'<span style="color:{colour.replace("#888", "#666")}">{called}</span>' for called, colour in zip(ways.values(), COLOURS))
    low, high = found["ndcg_10"]["ahead"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>body{{font:16px/1.5 system-ui;max-width:46rem;margin:2rem auto;padding:0 1rem}}td,th{{padding:.2rem .8rem;text-align:left}}
td div{{background:#3465a4;height:.8rem}}svg{{width:100%;height:auto}}</style>
<h1>{name}</h1><p>{found['examples']['earlier']} examples to train with, {found['examples']['held_out']} later ones held out{over}.</p>
<table><tr><th></th>{heads}</tr>{rows}</table>
<p>NDCG@10 of the model is ahead{of} by {low:.4f} to {high:.4f} in 95 of 100 draws of users.</p>
<h2>NDCG@10 along the held-out part</h2>
<svg viewBox="0 0 640 200" role="img" aria-label="NDCG@10 in tenths of the held-out part"><line x1="40" y1="170" x2="600" y2="170" stroke="#888"/>
<text x="2" y="24" font-size="12">{top:.3f}</text><text x="14" y="174" font-size="12">0</text>{lines}</svg><p>{legend}</p>
"""
