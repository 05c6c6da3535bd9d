package config

import (
	"reflect"
)

var configType = reflect.TypeFor[Config]()

// merge makes one tree of the files' trees: sections that map names to things are joined, every other section may stand
// in one file only. It gives nil when there is nothing to join.
func merge(roots []*Node, sections *shape) (*Node, Problems) {
	var problems Problems
	var merged *Node
	for _, root := range roots {
		if root.kind != kindMapping {
			problems = append(problems, root.Problem("the file is %s (accepted: %s)", root.what(), want(configType, nil)))
			continue
		}
		if merged == nil {
			merged = root // the first file's tree takes in the others
			continue
		}
		for _, section := range root.items {
			standing := merged.get(section.name)
			known := sections.byName[section.name]
			switch {
			case standing == nil:
				merged.put(section)
			case known == nil: // an unknown key: reported where it stands first, and here
				problems = append(problems, section.problemAtKey("unknown key (%s)", acceptedNames(section.name, sections.names())))
			case known.kind.Kind() == reflect.Map && standing.kind == kindMapping && section.kind == kindMapping:
				for _, thing := range section.items {
					if first := standing.get(thing.name); first != nil {
						problems = append(problems, thing.problemAtKey("duplicate key (first at %s)", first.keyPosition()))
						continue
					}
					standing.put(thing)
				}
			case known.kind.Kind() == reflect.Map && section.kind != kindMapping:
				problems = append(problems, section.Problem("is %s (accepted: %s)", section.what(), want(known.kind, known)))
			case known.kind.Kind() == reflect.Map: // what stands is wrong, and is reported by the decoder
			default:
				problems = append(problems, section.problemAtKey("may stand in one file only (first at %s)", standing.keyPosition()))
			}
		}
	}
	return merged, problems
}
