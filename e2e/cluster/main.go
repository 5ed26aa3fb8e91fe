// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Command cluster runs Kubernetes clusters on this machine for tests and demonstrations: the real
// control plane, kubelet, kube-proxy, containerd, CNI and DNS, each cluster in a network
// namespace of its own.
//
//	go -C e2e/cluster run . up --name dev
//	go -C e2e/cluster run . down --name dev
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}
