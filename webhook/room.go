// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// maxAnnotationBytes is what the API server accepts for all annotations of an object together, keys and values.
const maxAnnotationBytes = 256 << 10

// holdRoom is what a hold needs: some 450 bytes for itself and its marks, more when it is written anew in the
// middle of a rollout, and some 2,300 for what the Deployment controller adds when it copies all of it to
// a ReplicaSet (the history of revisions alone may have 2,000). A ReplicaSet that the API server refuses
// would stop the update without a word.
const holdRoom = 4 << 10

// NoRoomToHold is why a Deployment whose annotations are nearly as large as the API server accepts can't be held;
// empty when it can. What Headgate has written already does not count.
func NoRoomToHold(d *appsv1.Deployment) string {
	if annotationBytes(d.Annotations, OwnAnnotations()...)+holdRoom <= maxAnnotationBytes {
		return ""
	}
	return "its annotations leave no room for those of a hold (the API accepts 256 KiB in all)"
}

// annotationBytes is the size of annotations as the API server counts it.
func annotationBytes(annotations map[string]string, without ...string) int {
	size := 0
	for key, value := range annotations {
		if !slices.Contains(without, key) {
			size += len(key) + len(value)
		}
	}
	return size
}

// noteOnPod adds an annotation, if the API server would still accept the pod.
func noteOnPod(pod *corev1.Pod, key, value string) {
	if annotationBytes(pod.Annotations, key)+len(key)+len(value) <= maxAnnotationBytes {
		setAnnotation(pod, key, value)
	}
}
