// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/e2e/cluster/internal/build"
	"github.com/headgate/headgate/e2e/cluster/internal/cluster"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
	"github.com/headgate/headgate/e2e/cluster/internal/progress"
)

// defaultName is the cluster that is meant when none is named.
const defaultName = "dev"

// newCommand makes the command line. Progress goes to the standard error, results to the
// standard output, so that scripts can use them.
func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "cluster",
		Short: "Kubernetes clusters on this machine, for tests and demonstrations",
		Long: `Runs Kubernetes clusters on this machine: the real control plane, kubelet, kube-proxy,
containerd, CNI and DNS. Each lives in a network namespace of its own, so that several
run side by side and nothing of them is left behind. Programs are compiled from their Go
modules once (about 12 minutes in all) and kept in .cache. Needs root and Go; what else is
missing is installed from the distribution (Debian or Ubuntu).`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newUp(), newDown(), newStatus(), newRestart(), newStop(), newLoad(), newNsenter(),
		newInstall(), newBuild(), newImages(),
	)
	return root
}

func newUp() *cobra.Command {
	var name, kubeconfig string
	var images bool
	var options cluster.Options
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a cluster up; print the path of its kubeconfig",
		Long: `Brings a cluster up, or completes one of which parts have died, and prints the path of its
kubeconfig as the only line of the standard output. Installs and builds what is missing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := newBuilder()
			if err != nil {
				return err
			}
			c, err := cluster.Up(cmd.Context(), b, name, options)
			if err != nil {
				return err
			}
			if images {
				if err := load(cmd, b, name, build.ProjectImages); err != nil {
					return err
				}
			}
			b.Log.Summary("cluster " + name + " is up")
			path := c.Kubeconfig()
			if kubeconfig != "" {
				if path, err = copyKubeconfig(path, kubeconfig); err != nil {
					return err
				}
			}
			return output(cmd, path)
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "also write the kubeconfig to this file, and print its path instead")
	cmd.Flags().StringVar(&options.Kubernetes, "kubernetes", "", "minor version of Kubernetes ("+strings.Join(build.KubernetesVersions(), ", ")+
		"); a cluster of another one is replaced (default: what the cluster runs, else "+build.DefaultKubernetes+")")
	cmd.Flags().BoolVar(&options.Metrics, "metrics", false, "also run metrics-server, which horizontal pod autoscaling needs")
	cmd.Flags().BoolVar(&images, "images", false, "also build and load the project's images")
	return cmd
}

func newDown() *cobra.Command {
	var name string
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take a cluster down, whatever state it is in",
		Long: `Takes a cluster down: its processes, containers, mounts, interfaces, network namespace and
files. Works as well on what a crash, a kill -9 or a restart of the machine has left, and
when there is nothing to do.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := progress.New(os.Stderr)
			names := []string{name}
			if all {
				var err error
				if names, err = cluster.Names(); err != nil {
					return err
				}
			}
			var errs []error
			for _, name := range names {
				step := log.Start("taking cluster "+name+" down", "")
				err := cluster.Down(name)
				step.Done(err)
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().BoolVar(&all, "all", false, "take all clusters of this machine down")
	return cmd
}

func newStatus() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how a cluster's parts are doing; without --name, all clusters",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{name}
			if !cmd.Flags().Changed("name") {
				var err error
				if names, err = cluster.Names(); err != nil {
					return err
				}
			}
			for i, name := range names {
				if i > 0 {
					_ = output(cmd)
				}
				if err := cluster.Status(cmd.Context(), cmd.OutOrStdout(), name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

func newRestart() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "restart COMPONENT...",
		Short: "Kill components, as status lists them, and start them again",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder()
			if err != nil {
				return err
			}
			return cluster.Restart(cmd.Context(), b, name, args)
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

func newStop() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "stop COMPONENT...",
		Short: "Kill components; up starts them again",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return cluster.Stop(name, args)
		},
	}
	nameFlag(cmd, &name)
	return cmd
}

func newLoad() *cobra.Command {
	var name, from string
	cmd := &cobra.Command{
		Use:   "load [IMAGE|FILE.tar]...",
		Short: "Put images into a cluster: files, or the project's, built first if need be",
		Long: "Puts images into a cluster. An argument is the name of an image that this command can build\n(" +
			strings.Join(build.ImageNames(), ", ") + "),\nor an archive as made by docker save or buildah. Without arguments: the project's images.\n\n" +
			"With --from, instead: the images of the control plane and the sidecar as they were in an earlier\n" +
			"commit, with its hash as their tag. Prints the path of its chart, which installs these images.",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder()
			if err != nil {
				return err
			}
			if from != "" {
				if len(args) > 0 {
					return errors.New("--from says itself which images are loaded, name none")
				}
				return loadRelease(cmd, b, name, from)
			}
			if len(args) == 0 {
				args = build.ProjectImages
			}
			return load(cmd, b, name, args)
		},
	}
	nameFlag(cmd, &name)
	cmd.Flags().StringVar(&from, "from", "", "commit of this repository to build the control plane and the sidecar from")
	return cmd
}

func loadRelease(cmd *cobra.Command, b build.Builder, name, revision string) error {
	c, err := cluster.Find(name)
	if err != nil {
		return err
	}
	release, err := b.Release(cmd.Context(), revision)
	if err != nil {
		return err
	}
	for _, image := range release.Images {
		if err := importImage(cmd, b, c, image); err != nil {
			return err
		}
	}
	return output(cmd, release.Chart)
}

func load(cmd *cobra.Command, b build.Builder, name string, images []string) error {
	c, err := cluster.Find(name)
	if err != nil {
		return err
	}
	for _, image := range images {
		if !slices.Contains(build.ImageNames(), image) {
			if err := cluster.ImportArchive(cmd.Context(), c, image); err != nil {
				return err
			}
			continue
		}
		built, err := b.Image(cmd.Context(), image)
		if err != nil {
			return err
		}
		if err := importImage(cmd, b, c, built); err != nil {
			return err
		}
	}
	return nil
}

func importImage(cmd *cobra.Command, b build.Builder, c plan.Cluster, image build.Image) error {
	step := b.Log.Start("loading image "+image.Reference, "")
	err := cluster.Import(cmd.Context(), c, image)
	step.Done(err)
	return err
}

func newNsenter() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "nsenter --name NAME -- COMMAND...",
		Short: "Run a command in a cluster's network, where Services have addresses and names",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := cluster.Find(name)
			if err != nil {
				return err
			}
			return cluster.Exec(c, args)
		},
	}
	cmd.Flags().SetInterspersed(false)
	nameFlag(cmd, &name)
	return cmd
}

func newInstall() *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Install what is missing from the distribution",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := newBuilder()
			if err != nil {
				return err
			}
			return b.Install(cmd.Context())
		},
	}
}

func newBuild() *cobra.Command {
	return &cobra.Command{
		Use:       "build [PROGRAM...]",
		Short:     "Build or fetch programs (" + strings.Join(build.ProgramNames(), ", ") + ") unless the cache has them; print their paths",
		ValidArgs: build.ProgramNames(),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = build.ProgramNames()
			}
			for _, name := range args {
				path, err := b.Program(cmd.Context(), name)
				if err != nil {
					return err
				}
				if err := output(cmd, path); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func newImages() *cobra.Command {
	return &cobra.Command{
		Use:       "images [IMAGE...]",
		Short:     "Build images unless the cache has them; print their archives and names",
		Long:      "Builds images: " + strings.Join(build.ImageNames(), ", ") + ".\nWithout arguments: the project's, " + strings.Join(build.ProjectImages, ", ") + ".",
		ValidArgs: build.ImageNames(),
		Args:      cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := newBuilder()
			if err != nil {
				return err
			}
			if err := b.Install(cmd.Context()); err != nil {
				return err
			}
			if len(args) == 0 {
				args = build.ProjectImages
			}
			for _, name := range args {
				image, err := b.Image(cmd.Context(), name)
				if err != nil {
					return err
				}
				if err := output(cmd, image.Archive, image.Reference); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func nameFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", defaultName, "name of the cluster")
}

func newBuilder() (build.Builder, error) {
	dir, err := os.Getwd()
	if err != nil {
		return build.Builder{}, err
	}
	repo, err := build.FindRepo(dir)
	return build.Builder{Repo: repo, Log: progress.New(os.Stderr)}, err
}

func output(cmd *cobra.Command, values ...any) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), values...)
	return err
}

// copyKubeconfig copies the file; it holds a key.
func copyKubeconfig(from, to string) (string, error) {
	data, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	if to, err = filepath.Abs(to); err != nil {
		return "", err
	}
	return to, os.WriteFile(to, data, 0o600)
}
