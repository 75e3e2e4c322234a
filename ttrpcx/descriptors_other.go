//go:build !unix

package ttrpcx

// descriptorLimit returns a number that limits nothing, because this platform has no such limit.
func descriptorLimit() int { return maxDescriptors }
