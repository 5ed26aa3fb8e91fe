// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/headgate/headgate/analysis/simulate"
)

// Colours that can be told apart by the colour-blind, and on light and dark.
func palette(i int) color.Color {
	return []color.Color{
		color.RGBA{R: 0, G: 114, B: 178, A: 255}, color.RGBA{R: 213, G: 94, B: 0, A: 255},
		color.RGBA{R: 0, G: 158, B: 115, A: 255}, color.RGBA{R: 204, G: 121, B: 167, A: 255},
	}[i%4]
}

// pictures draws all of them.
func pictures(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	paths, err := evidencePaths()
	if err != nil {
		return fmt.Errorf("drawing the evidence: %w", err)
	}
	times, err := rollbackTimes()
	if err != nil {
		return fmt.Errorf("drawing the times to rollback: %w", err)
	}
	for name, p := range map[string]*plot.Plot{"analysis-evidence.svg": paths, "analysis-rollback.svg": times} {
		if err := p.Save(18*vg.Centimeter, 9*vg.Centimeter, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Legend.Top = true // right, where curves are flat
	p.Add(plotter.NewGrid())
	return p
}

// line adds a curve.
func line(p *plot.Plot, name string, i int, xy plotter.XYs) error {
	l, err := plotter.NewLine(xy)
	if err != nil {
		return err
	}
	l.Color, l.Width = palette(i), vg.Points(1.6)
	p.Add(l)
	p.Legend.Add(name, l)
	return nil
}

// evidencePaths shows three candidates, look by look.
func evidencePaths() (*plot.Plot, error) {
	p := newPlot("Evidence against three candidates at 10 %, 200 requests/s", "seconds", "e-value")
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = 0.1, 1000
	worlds := []struct {
		name  string
		world simulate.World
	}{
		{"good", simulate.World{RPS: 200, Base: 0.001, Latency: true, Cold: 3}},
		{"bad: 1.1 % fail instead of 0.1 %", simulate.World{RPS: 200, Base: 0.001, Latency: true, Cold: 3, Worse: simulate.Plus(0.01)}},
		{"good, in a service whose pods burst", simulate.World{RPS: 200, Base: 0.001, Latency: true, Cold: 3, Noise: simulate.Bursts(0.2, 30, 600)}},
	}
	for i, w := range worlds {
		out := simulate.Plan{Weights: []int{10}, Lasts: 4 * time.Minute}.Run(w.world, 3)
		var xy plotter.XYs
		for t, e := range out.Path {
			xy = append(xy, plotter.XY{X: float64(5 * (t + 1)), Y: min(max(e, 0.1), 1000)})
		}
		if err := line(p, w.name, i, xy); err != nil {
			return nil, err
		}
	}
	limit := plotter.NewFunction(func(float64) float64 { return 100 })
	limit.Dashes, limit.Color = []vg.Length{vg.Points(4), vg.Points(3)}, palette(3)
	p.Add(limit)
	p.Legend.Add("rolls back", limit)
	return p, nil
}

// rollbackTimes shows how long each tool takes for candidates that fail more and more.
func rollbackTimes() (*plot.Plot, error) {
	const runs = 60
	p := newPlot("Time to rollback at 10 %, 200 requests/s, stable fails 0.1 %", "candidate's error rate (%)", "median seconds")
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = 10, 2000
	for i, r := range rivals() {
		var xy plotter.XYs
		for _, rate := range []float64{0.004, 0.006, 0.008, 0.0105, 0.015, 0.02, 0.05, 0.1, 0.3, 1} {
			progress("picture: %s at %g", r.name, rate)
			all := r.many(simulate.World{RPS: 200, Base: 0.001, Worse: simulate.Plus(rate - 0.001)}, runs)
			if t := simulate.Quantile(simulate.Times(all, simulate.RolledBack), 0.5); t != simulate.Never {
				xy = append(xy, plotter.XY{X: 100 * rate, Y: t.Seconds()})
			}
		}
		if err := line(p, r.name, i, xy); err != nil {
			return nil, err
		}
	}
	return p, nil
}
