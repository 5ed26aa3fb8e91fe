// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubernetes is the control plane and the node of a Kubernetes cluster
// in one binary, so that one link step and one file in the cache serve them all.
//
// The component is the first argument, or the name by which the binary is
// called: a link named kubectl is kubectl.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go's metrics, as in the upstream commands
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// commands makes the cobra command of each component. They are made on demand:
// making one registers its flags and feature gates globally.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kubelet":                 newKubeletCommand,
}

// newKubeletCommand hides what differs: until 1.30 the kubelet's command takes no context.
func newKubeletCommand() *cobra.Command {
	switch newCommand := any(kubelet.NewKubeletCommand).(type) {
	case func() *cobra.Command:
		return newCommand()
	case func(context.Context) *cobra.Command:
		return newCommand(context.Background())
	}
	panic("this version of Kubernetes makes its kubelet in a way that is not known here")
}

func main() {
	name, args := component(os.Args)
	// etcd has a command line of its own and reads os.Args, as kubectl's
	// plugin handling does.
	os.Args = args
	if name == "etcd" {
		etcdmain.Main(args)
		return
	}
	newCommand, ok := commands[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "unknown component %q, want one of %s\n", name, strings.Join(names(), ", "))
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}

// component returns what to run and the arguments it shall see, its own name first.
func component(args []string) (name string, rest []string) {
	name = filepath.Base(args[0])
	if slices.Contains(names(), name) {
		return name, args
	}
	if len(args) < 2 {
		return "", args
	}
	return args[1], args[1:]
}

// names lists the components, sorted.
func names() []string {
	all := []string{"etcd"}
	for name := range commands {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
