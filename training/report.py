"""The report of a training, as a page."""

import html


def report(name, begins, found):
    """One page without any script: the figures, NDCG@10 along the held-out part, and what the model looks at."""
    without = {"blend": "blend", "fixed": "fixed weights"}[begins]
    figures, tenths = found["ndcg_10"], found["tenths"]
    top = max(tenths["model"] + tenths["blend"]) or 1.0

    def line(values, colour):
        points = " ".join(f"{40 + 60 * n:.0f},{170 - 150 * value / top:.1f}" for n, value in enumerate(values))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'

    strongest = sorted(found["importance"].items(), key=lambda item: -item[1])[:15]
    most = strongest[0][1] or 1.0
    bars = "".join(
        f'<tr><td>{html.escape(name)}</td><td><div style="width:{300 * value / most:.0f}px"></div></td></tr>' for name, value in strongest)
    rows = "".join(f"<tr><td>{what}</td><td>{found[key]['model']:.4f}</td><td>{found[key]['blend']:.4f}</td></tr>"
                   for what, key in (("NDCG@10", "ndcg_10"), ("AUC", "auc")) if found[key]["model"] is not None)
    low, high = figures["ahead"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>body{{font:16px/1.5 system-ui;max-width:46rem;margin:2rem auto;padding:0 1rem}}td,th{{padding:.2rem .8rem;text-align:left}}
td div{{background:#3465a4;height:.8rem}}svg{{width:100%;height:auto}}</style>
<h1>{name}</h1><p>{found['examples']['earlier']} examples to train with, {found['examples']['held_out']} later ones held out.</p>
<table><tr><th></th><th>model</th><th>{without}</th></tr>{rows}</table>
<p>NDCG@10 of the model is ahead by {low:.4f} to {high:.4f} in 95 of 100 draws of users.</p>
<h2>NDCG@10 along the held-out part</h2>
<svg viewBox="0 0 640 200" role="img" aria-label="NDCG@10 in tenths of the held-out part"><line x1="40" y1="170" x2="600" y2="170" stroke="#888"/>
<text x="2" y="24" font-size="12">{top:.3f}</text><text x="14" y="174" font-size="12">0</text>{line(tenths['blend'], '#888')}
{line(tenths['model'], '#3465a4')}</svg><p><span style="color:#3465a4">model</span>, <span style="color:#666">{without}</span></p>
<h2>What it looks at</h2><table>{bars}</table></html>
"""
