package cli

import (
	"fmt"
	"os/user"
	"strconv"
	"strings"
)

// idFlag is a flag that collects ids of users, groups or machines, given as numbers or names.
type idFlag struct {
	ids    *[]uint32
	lookup func(name string) (id string, err error)
}

func (f idFlag) String() string {
	if f.ids == nil {
		return ""
	}
	var s []string
	for _, id := range *f.ids {
		s = append(s, strconv.FormatUint(uint64(id), 10))
	}
	return strings.Join(s, ",")
}

func (f idFlag) Set(s string) error {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		found, lookupErr := f.lookup(s)
		if lookupErr != nil {
			return lookupErr
		}
		if id, err = strconv.ParseUint(found, 10, 32); err != nil { // a Windows SID
			return fmt.Errorf("%s has no numeric id on this platform", s)
		}
	}
	*f.ids = append(*f.ids, uint32(id))
	return nil
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", fmt.Errorf("no user is called %q", name)
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", fmt.Errorf("no group is called %q", name)
	}
	return g.Gid, nil
}

func lookupMachine(name string) (string, error) {
	return "", fmt.Errorf("%q is not a CID: want a number", name)
}
