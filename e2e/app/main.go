// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{
		"load": runLoad, "admit": runAdmit, "proxy": runProxy, "signal": runSignal, "network": runNetwork, "digest": runDigest,
	}
	if len(args) > 0 {
		command, known := commands[args[0]]
		if !known {
			return fmt.Errorf("unknown command %q, want nothing (to serve) or one of %q", args[0], slices.Sorted(maps.Keys(commands)))
		}
		return command(ctx, args[1:])
	}
	b, err := parseBehaviour(os.Getenv)
	if err != nil {
		return err
	}
	return serve(ctx, b)
}
