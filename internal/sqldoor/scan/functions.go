package scan

import "strings"

// functionKind says what is special about a built-in function.
type functionKind uint8

const (
	plain    functionKind = iota
	spaced                // built in only without a space before the bracket, unless sql_mode has IGNORE_SPACE (MySQL manual 11.2.5)
	userLock              // takes or frees a user lock
	instance              // its answer or its wait concerns one instance
	foundRows
	rowCount
	connectionID
	login
	lastInsertID
	nextValue
	lastValue
	file
)

const (
	functionLongest = 32

	plainFunctions = `abs acos addtime aes_decrypt aes_encrypt ascii asin atan atan2 avg benchmark bin bit_count bit_length ceil ceiling char_length character_length
coalesce coercibility collation compress concat concat_ws conv convert_tz cos cot crc32 cume_dist date date_format datediff datetime day dayname dayofmonth
dayofweek dayofyear degrees dense_rank elt exp export_set extractvalue field find_in_set first_value floor format from_base64 from_days from_unixtime
get_format greatest hex hour ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa instr is_ipv4 is_ipv4_compat is_ipv4_mapped is_ipv6 isnull
json_array json_array_append json_array_insert json_arrayagg json_contains json_contains_path json_depth json_extract json_insert json_keys json_length
json_merge json_merge_patch json_merge_preserve json_object json_objectagg json_overlaps json_pretty json_quote json_remove json_replace json_search json_set
json_table json_type json_unquote json_valid json_value lag last_day last_value lcase lead least length ln locate log log10 log2 lower lpad ltrim make_set
makedate maketime md5 microsecond minute month monthname name_const nth_value ntile nullif oct octet_length ord percent_rank period_add period_diff pi pow power
quarter quote radians rand random_bytes rank regexp_instr regexp_replace regexp_substr reverse round row row_number rpad rtrim sec_to_time second sha sha1 sha2
sign signed sin sleep soundex space sqrt str_to_date strcmp substring_index subtime tan time time_format time_to_sec timediff timestamp timestampadd timestampdiff
to_base64 to_days to_seconds truncate ucase uncompress uncompressed_length unhex unix_timestamp updatexml upper uuid uuid_short week weekday
weekofyear weight_string year yearweek nchar any some
geometrycollection linestring multilinestring multipoint multipolygon point polygon mbrcontains mbrdisjoint mbrequals mbrintersects mbroverlaps mbrtouches
mbrwithin st_area st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_buffer st_centroid st_contains st_convexhull st_crosses st_difference st_dimension
st_disjoint st_distance st_distance_sphere st_endpoint st_envelope st_equals st_exteriorring st_geomcollfromtext st_geomcollfromwkb st_geometryn
st_geometrytype st_geomfromgeojson st_geomfromtext st_geomfromwkb st_interiorringn st_intersection st_intersects st_isclosed st_isempty st_issimple st_length
st_linefromtext st_linefromwkb st_numgeometries st_numinteriorrings st_numpoints st_overlaps st_pointfromtext st_pointfromwkb st_pointn st_polyfromtext
st_polyfromwkb st_srid st_startpoint st_symdifference st_touches st_union st_within st_x st_y
database schema`

	mariadbFunctions = `add_months chr column_add column_check column_create column_delete column_exists column_get column_json column_list crc32c decode decode_oracle
encode encrypt json_compact json_detailed json_equals json_exists json_loose json_normalize json_query lengthb lpad_oracle ltrim_oracle median
natural_sort_key nvl nvl2 old_password password percentile_cont percentile_disc replace_oracle rpad_oracle rtrim_oracle sformat substr_oracle sys_guid to_char
trim_oracle st_boundary st_isring st_pointonsurface st_relate`

	mysqlFunctions = `any_value bin_to_uuid grouping is_uuid json_schema_valid json_schema_validation_report json_storage_free json_storage_size regexp_like mbrcoveredby geomcollection
st_collect st_frechetdistance st_geohash st_hausdorffdistance st_isvalid st_latfromgeohash st_latitude st_lineinterpolatepoint st_lineinterpolatepoints st_longfromgeohash
st_longitude st_makeenvelope st_mpointfromtext st_pointatdistance st_pointfromgeohash st_simplify st_swapxy st_transform st_validate statement_digest
statement_digest_text uuid_to_bin gtid_subset gtid_subtract`

	spacedFunctions = `adddate bit_and bit_or bit_xor cast count curdate curtime date_add date_sub extract group_concat max mid min now position std stddev stddev_pop
stddev_samp subdate substr substring sum sysdate trim var_pop var_samp variance`
)

type functionEntry struct {
	kind           functionKind
	mariadb, mysql bool
}

var functions = func() map[string]functionEntry {
	all := make(map[string]functionEntry, 512)
	add := func(names string, e functionEntry) {
		for name := range strings.FieldsSeq(names) {
			all[name] = e
		}
	}
	both := func(k functionKind) functionEntry { return functionEntry{k, true, true} }
	add(plainFunctions, both(plain))
	add(mariadbFunctions, functionEntry{plain, true, false})
	add(mysqlFunctions, functionEntry{plain, false, true})
	add(spacedFunctions, both(spaced))
	add("get_lock release_lock release_all_locks", both(userLock))
	add("is_free_lock is_used_lock master_pos_wait version", both(instance))
	add("master_gtid_wait binlog_gtid_pos decode_histogram des_decrypt des_encrypt wsrep_last_seen_gtid wsrep_last_written_gtid wsrep_sync_wait_upto_gtid", functionEntry{instance, true, false})
	add("source_pos_wait wait_for_executed_gtid_set wait_until_sql_thread_after_gtids ps_current_thread_id ps_thread_id", functionEntry{instance, false, true})
	add("found_rows", both(foundRows))
	add("row_count", both(rowCount))
	add("connection_id", both(connectionID))
	add("user session_user system_user current_role", both(login))
	add("last_insert_id", both(lastInsertID))
	add("nextval setval", functionEntry{nextValue, true, false})
	add("lastval", functionEntry{lastValue, true, false})
	add("load_file", both(file))
	return all
}()

// builtin says whether the name is that of a built-in function, in any case. A name that only the other flavour knows is not built in: here it may be a
// stored function.
func builtin(name []byte, mariadb bool) (known bool, kind functionKind) {
	if len(name) > functionLongest {
		return false, plain
	}
	var small [functionLongest]byte
	for i, c := range name {
		if c-'A' <= 'Z'-'A' {
			c |= 0x20
		}
		small[i] = c
	}
	e, ok := functions[string(small[:len(name)])]
	return ok && (mariadb && e.mariadb || !mariadb && e.mysql), e.kind
}
