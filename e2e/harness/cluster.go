// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/semaphore"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/headgate/headgate/api/v1alpha1"
)

// Where Headgate is installed.
const (
	SystemNamespace = "headgate-system"
	SystemName      = "headgate"
)

// AppImage is the sample application; a tag follows.
const AppImage = "ghcr.io/headgate/testapp:"

// totalRate is what all clients may send together, per second.
const totalRate = 400

// Cluster is a connection to a cluster and the programs that people use on it.
type Cluster struct {
	Client client.WithWatch
	Kube   kubernetes.Interface
	// Kubectl and Helm are paths of programs.
	Kubectl, Helm string
	// Kubeconfig is the file that they use.
	Kubeconfig string
	// Repo is the root of this repository.
	Repo string

	rate *semaphore.Weighted
}

// Access says how a cluster is reached.
type Access struct {
	// Kubeconfig is a file.
	Kubeconfig string
	// Kubectl and Helm are paths of programs, or names to be found in PATH.
	Kubectl, Helm string
}

// Connect uses KUBECONFIG, and the programs named by HEADGATE_KUBECTL and HEADGATE_HELM (else those
// found in PATH).
func Connect(ctx context.Context) (*Cluster, error) {
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		return nil, errors.New("KUBECONFIG is not set: it must name the cluster to test on")
	}
	return ConnectTo(ctx, Access{
		Kubeconfig: path,
		Kubectl:    cmp.Or(os.Getenv("HEADGATE_KUBECTL"), "kubectl"),
		Helm:       cmp.Or(os.Getenv("HEADGATE_HELM"), "helm"),
	})
}

// ConnectTo connects and checks that the cluster answers.
func ConnectTo(ctx context.Context, a Access) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", a.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", a.Kubeconfig, err)
	}
	repo, err := FindRepo()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Kubectl: a.Kubectl, Helm: a.Helm,
		Kubeconfig: a.Kubeconfig, Repo: repo, rate: semaphore.NewWeighted(totalRate),
	}
	return c, c.connect(ctx, config)
}

func (c *Cluster) connect(ctx context.Context, config *rest.Config) error {
	// Many cases share this connection, and each waits with watches; what they ask for is little.
	config.QPS, config.Burst = 200, 400
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), v1alpha1.AddToScheme(known)); err != nil {
		return fmt.Errorf("registering types: %w", err)
	}
	var err error
	if c.Client, err = client.NewWithWatch(config, client.Options{Scheme: known}); err != nil {
		return fmt.Errorf("creating a client: %w", err)
	}
	if c.Kube, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("creating a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := c.Kube.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("reaching the cluster of %q: %w", c.Kubeconfig, err)
	}
	return nil
}

// FindRepo goes up from the working directory to the folder with the charts.
func FindRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "charts", "headgate", "Chart.yaml"))
		if err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return "", errors.New("finding charts/headgate: start this inside the repository")
		}
		dir = up
	}
}
