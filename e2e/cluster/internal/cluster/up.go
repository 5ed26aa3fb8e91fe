// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/e2e/cluster/internal/build"
	"github.com/headgate/headgate/e2e/cluster/internal/config"
	"github.com/headgate/headgate/e2e/cluster/internal/network"
	"github.com/headgate/headgate/e2e/cluster/internal/plan"
	"github.com/headgate/headgate/e2e/cluster/internal/process"
)

// startTimeout is how long any one part may take to get ready: many times what it takes on an idle
// machine, since a test machine may be busy.
const startTimeout = 3 * time.Minute

// Options say what a cluster has beyond what every cluster has.
type Options struct {
	// Metrics adds metrics-server, which a HorizontalPodAutoscaler needs.
	Metrics bool
	// Kubernetes is the minor version to run, such as 1.36. Empty: the one that the cluster runs already, or
	// the default.
	Kubernetes string
}

// Up brings the cluster up, or completes one of which parts are missing, and returns
// when pods can be created and names resolve.
func Up(ctx context.Context, b build.Builder, name string, options Options) (plan.Cluster, error) {
	if err := errors.Join(plan.CheckName(name), needRoot()); err != nil {
		return plan.Cluster{}, err
	}
	if err := b.Install(ctx); err != nil {
		return plan.Cluster{}, err
	}
	s, err := load(name)
	if err != nil {
		return plan.Cluster{}, err
	}
	version := cmp.Or(options.Kubernetes, s.Version, build.DefaultKubernetes)
	kubernetes, err := b.Kubernetes(ctx, version)
	if err != nil {
		return plan.Cluster{}, err
	}
	names := slices.Clone(build.OwnImages)
	if options.Metrics {
		names = append(names, build.MetricsServerImage)
	}
	var images []build.Image
	for _, name := range names {
		built, err := b.Image(ctx, name)
		if err != nil {
			return plan.Cluster{}, err
		}
		images = append(images, built)
	}
	unlock, err := lock(plan.Cluster{Name: name}.Dir())
	if err != nil {
		return plan.Cluster{}, err
	}
	defer unlock()
	c, err := prepare(b, name, state{Kubernetes: kubernetes, Version: version})
	if err != nil {
		return plan.Cluster{}, err
	}
	return c, newStarter(c, b.Log, kubernetes).run(ctx, images, options)
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: for namespaces, mounts and containers")
	}
	return nil
}

// prepare makes everything that is there before the first process, for the version of Kubernetes that is wanted.
func prepare(b build.Builder, name string, wanted state) (plan.Cluster, error) {
	s, err := load(name)
	if err != nil {
		return plan.Cluster{}, err
	}
	c := plan.Cluster{Name: name, Slot: s.Slot, Kubernetes: wanted.Version}
	if s.Prepared && network.Exists(c) && sameVersion(s.Kubernetes, wanted.Kubernetes) {
		// What runs has read its own; parts that are started now get those of this version.
		return c, writeConfiguration(c)
	}
	// What is left of an earlier cluster isn't worth saving: it was cut short, or the machine
	// was restarted, or its binary is another version.
	if err := remove(c); err != nil {
		return plan.Cluster{}, err
	}
	step := b.Log.Start("preparing cluster "+name, "")
	c, err = makeAnew(name, wanted)
	step.Done(err)
	return c, err
}

// sameVersion compares binaries by the folder in their cache, which names version and content: another
// clone of the repository has another cache.
func sameVersion(a, b string) bool {
	return filepath.Base(filepath.Dir(a)) == filepath.Base(filepath.Dir(b))
}

func makeAnew(name string, wanted state) (plan.Cluster, error) {
	c, err := claim(name, wanted.Version)
	if err != nil {
		return plan.Cluster{}, err
	}
	keys, err := newKeys(c)
	if err != nil {
		return plan.Cluster{}, err
	}
	if err := errors.Join(write(c, keys), writeConfiguration(c)); err != nil {
		return plan.Cluster{}, err
	}
	if err := network.Create(c); err != nil {
		return plan.Cluster{}, err
	}
	wanted.Slot, wanted.Prepared = c.Slot, true
	return c, wanted.save(name)
}

// writeConfiguration writes the files that aren't as they should be. kube-proxy ends by itself, some time
// after its file was written; it is ended here, so that it is started again for certain.
func writeConfiguration(c plan.Cluster) error {
	files, err := config.Files(c, build.CNIPlugins)
	if err != nil {
		return err
	}
	for path, content := range files {
		if old, err := os.ReadFile(c.Path(path)); err == nil && bytes.Equal(old, content) {
			delete(files, path)
		}
	}
	if _, changed := files[config.ProxyFile]; changed {
		record, err := process.Load(c.Record(config.Proxy))
		if err != nil {
			return err
		}
		if err := record.End(endTimeout); err != nil {
			return err
		}
	}
	return write(c, files)
}

// write puts files below the cluster's folder. They are root's: keys are among them.
func write(c plan.Cluster, files map[string][]byte) error {
	for path, content := range files {
		path = c.Path(path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// run starts what doesn't run and waits for each part as far as the next ones need it.
func (s *starter) run(ctx context.Context, images []build.Image, options Options) (err error) {
	step := s.log.Start("starting cluster "+s.cluster.Name, "")
	defer func() { step.Done(err) }()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	api, err := newAPI(s.cluster)
	if err != nil {
		return err
	}

	if err := s.start(config.Etcd, config.Containerd, config.APIServer); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := s.wait(groupCtx, "containerd", func(context.Context) error { return dial(s.cluster.ContainerdSocket()) }); err != nil {
			return err
		}
		for _, image := range images {
			if err := Import(groupCtx, s.cluster, image); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error {
		if err := s.wait(groupCtx, "the API server", api.ready); err != nil {
			return err
		}
		return s.start(config.ControllerManager, config.Scheduler)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := createCgroups(s.cluster); err != nil {
		return err
	}
	if err := s.start(config.Kubelet, config.Proxy); err != nil {
		return err
	}
	return s.finish(ctx, api, options)
}

// finish adds what runs in the cluster itself, and waits until all of it works.
func (s *starter) finish(ctx context.Context, api api, options Options) error {
	if err := s.apply(ctx, config.AddonsManifest); err != nil {
		return err
	}
	if options.Metrics {
		if err := s.apply(ctx, config.MetricsServerManifest); err != nil {
			return err
		}
	}
	checks := []check{
		{"the node", api.nodeReady},
		// Without it no pod can be created in the default namespace.
		{"the default service account", api.serviceAccountExists},
		{"CoreDNS", api.dnsReady},
		// kube-proxy may be a second behind.
		{"the DNS Service", func(ctx context.Context) error { return resolve(ctx, s.cluster) }},
	}
	for _, component := range []string{config.ControllerManager, config.Scheduler, config.Kubelet, config.Proxy} {
		checks = append(checks, check{component, func(ctx context.Context) error { return healthy(ctx, s.cluster, component) }})
	}
	if options.Metrics {
		checks = append(checks, check{"the metrics API", api.metricsReady})
	}
	for _, check := range checks {
		if err := s.wait(ctx, check.what, check.of); err != nil {
			return err
		}
	}
	return nil
}

// check is something that has to become true.
type check struct {
	what string
	of   func(context.Context) error
}

// apply creates the objects of a manifest. Right after the start the API server may still refuse, so
// it is tried until it works.
func (s *starter) apply(ctx context.Context, manifest string) error {
	return s.wait(ctx, manifest, func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, s.kubernetes, "kubectl", "apply", "--server-side", "--force-conflicts",
			"--kubeconfig", s.cluster.Kubeconfig(), "--cache-dir", s.cluster.Path("kubectl"), "-f", s.cluster.Path(manifest))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("applying %s: %w: %s", manifest, err, out)
		}
		return nil
	})
}

// Restart ends components, abruptly, and starts them again.
func Restart(ctx context.Context, b build.Builder, name string, components []string) error {
	if err := Stop(name, components); err != nil {
		return err
	}
	_, err := Up(ctx, b, name, Options{})
	return err
}

// Stop ends components, abruptly.
func Stop(name string, components []string) error {
	c, err := Find(name)
	if err != nil {
		return err
	}
	for _, component := range components {
		record, err := process.Load(c.Record(component))
		if err != nil {
			return err
		}
		if record.PID == 0 {
			return fmt.Errorf("cluster %q has no component %q", name, component)
		}
		if err := record.End(10 * time.Second); err != nil {
			return err
		}
	}
	return nil
}
