// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"

	"github.com/headgate/headgate/e2e/harness"
)

// Options are the flags.
type Options struct {
	Cluster, Kubeconfig, Out string
	Plain, NoColor           bool
}

func main() {
	options, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2)
	}
	// The first signal ends the demo in order, a second one at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err = demo(ctx, options)
	if errors.Is(err, context.Canceled) {
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&o.Cluster, "cluster", "demo", "name of the local cluster to bring up")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "use this cluster instead; it must have the project's images")
	flags.StringVar(&o.Out, "out", "", "where to write the results (default: out/demo.json in the repository)")
	flags.BoolVar(&o.Plain, "plain", false, "print lines instead of a screen (also when there is no terminal)")
	flags.BoolVar(&o.NoColor, "no-color", os.Getenv("NO_COLOR") != "", "no colours (also with NO_COLOR set)")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), "Shows three ordinary updates of a shop under load: a good version, one that fails 5 % of its\n"+
			"requests, and one that crashes. Exits with 1 when one of them does not end as it should.\n\nFlags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		flags.Usage()
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	tty := term.IsTerminal(os.Stdout.Fd()) && term.IsTerminal(os.Stdin.Fd())
	o.Plain = o.Plain || !tty || os.Getenv("TERM") == "dumb"
	o.NoColor = o.NoColor || !tty
	return o, nil
}

// demo prepares, shows the updates, and tells what they came to.
func demo(ctx context.Context, o Options) error {
	s := stage{options: o, output: os.Stderr, say: func(format string, args ...any) { fmt.Printf("▸ "+format+"\n", args...) }}
	cluster, err := s.prepare(ctx)
	if ctx.Err() != nil {
		fmt.Println("\nStopped while preparing. Run the demo again to go on, or `make demo-down` to clean up.")
		return context.Canceled
	}
	if err != nil {
		return err
	}
	updates, err := show(ctx, o, cluster)
	var p Palette
	if !o.NoColor {
		p = colours()
	}
	fmt.Println()
	fmt.Print(table(updates, p))
	path := o.Out
	if path == "" {
		path = filepath.Join(cluster.Repo, "out", "demo.json")
	}
	errWrite := writeResults(path, made(updates))
	if errors.Is(err, context.Canceled) {
		fmt.Println("\nStopped. Headgate ends the rollout under way on its own.")
		fmt.Print(next(cluster, o))
		if err := errors.Join(sendHome(cluster), errWrite); err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		return err
	}
	if err := errors.Join(err, errWrite); err != nil {
		return err
	}
	fmt.Printf("\nResults: %s. The client goes on for an hour, the cluster stays up.\n", path)
	fmt.Print(next(cluster, o))
	return unexpected(updates)
}

// show makes the updates while the audience watches.
func show(parent context.Context, o Options, cluster *harness.Cluster) ([]Update, error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	updates := theUpdates()
	model := NewModel(theUpdates(), firstTag, theSteps(), time.Now())
	viewers := inLines(model, os.Stdout)
	if !o.Plain {
		var p Palette
		if !o.NoColor {
			p = colours()
		}
		viewers = onScreen(screenModel{model: model, palette: p, quit: cancel})
	}
	reports := &reports{}
	ended := make(chan error, 1)
	go func() {
		sources := watchAll(ctx, cluster, reports, viewers.emit)
		d := &director{cluster: cluster, reports: reports, emit: viewers.emit}
		var err error
		updates, err = d.run(ctx, updates)
		if ctx.Err() != nil {
			err = context.Canceled
		}
		cancel()
		sources.Wait()
		ended <- err
		viewers.leave()
	}()
	errShow := viewers.run()
	return updates, errors.Join(<-ended, errShow)
}

// made are the results that there are.
func made(updates []Update) []Result {
	results := []Result{}
	for _, u := range updates {
		if u.Result != nil {
			results = append(results, *u.Result)
		}
	}
	return results
}

// next are commands worth trying.
func next(c *harness.Cluster, o Options) string {
	down := ""
	if o.Kubeconfig == "" {
		down = "  make demo-down\n"
	}
	return fmt.Sprintf(`
Try next:
  export KUBECONFIG=%[1]s
  alias kubectl=%[2]s
  kubectl -n %[3]s get rollouts,deployments,pods
  kubectl -n %[3]s describe rollout %[4]s
  kubectl -n %[3]s rollout undo deployment/%[4]s
  kubectl -n %[3]s set image deployment/%[4]s app=%[5]sv3
%[6]s`, c.Kubeconfig, c.Kubectl, namespace, workload, imageRepository, down)
}
