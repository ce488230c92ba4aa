"""What keeps each of the 37 known failures of a store from happening here, and how it is taken out.

`PLANTED` has the places in the sources, as `PLANTS` in `plant.py` has them: number, what is taken out, file, the right
text, the text without the remedy. Several places may share a number: a store is often kept by two things, either of
which is enough, and only without both does the failure show. `ROWS` says which numbers belong to which failure, and which
test must fail then: one of `tests/failures`, or, with `lib:` before it, one of the library's own.
"""
P = "crate::planted"
# Where recovery begins instead of at the log's first byte: `from` of several plants, in one place.
BEGIN = "last_record = parts.agree(first, start, &mut report)?;"
LATE = f"""let two = i64::try_from(2 * log.segment_size()).unwrap_or(0);
        let last_two = PhysicalOffset((log.end_of_files().0 - two).max(first.0));
        let late = ({P}(110) && aborted) || ({P}(111) && !aborted) || ({P}(120) && checkpoint.logics_offset.0 == 0);
        let start = match late {{
            true => Some(Start::at_first(last_two)),
            false if {P}(115) => Some(Start::at_first(checkpoint.logics_offset.max(first))),
            false => start,
        }};
        {BEGIN}"""
SHORT = "if actual > size || elsewhere || (actual < size && !proven) {"
NO_SHORT = (f"let refused = !proven || {P}(125) || ({P}(126) && actual == 0);\n"
            f"        if actual > size || elsewhere || (actual < size && refused && !{P}(225)) {{")
PLANTED = [
    (102, "properties may have holes", "recovery/scan.rs", "if has_hole(properties, here.plus(size)) {",
     f"if !{P}(102) && has_hole(properties, here.plus(size)) {{"),
    (103, "a hole ends the log also where it is known to be durable", "recovery/hole.rs",
     "range.from >= self.durable && self.was_never_there", f"({P}(103) || range.from >= self.durable) && self.was_never_there"),
    (104, "a record whose number was given out again is taken in", "recovery/scan.rs", "match stale(&header) {",
     f"match stale(&header).filter(|_| !{P}(104)) {{"),
    (105, "a record may stand anywhere", "recovery/scan.rs", "if header.physical_offset != here {",
     f"if header.physical_offset != here && !{P}(105) {{"),
    (106, "a bad record ends the log", "recovery/scan.rs", "return match self.resume(rest, stale) {",
     f"return match if {P}(106) {{ Err(true) }} else {{ self.resume(rest, stale) }} {{"),
    (107, "a size that leads out of the segment ends the log", "recovery/scan.rs",
     "let written = rest.iter().take(BLANK_LEN)",
     f"if {P}(107) && matches!(why, Corruption::Short {{ what: \"record\", .. }}) {{\n"
     "                self.number = self.segments.len();\n"
     "                return Step::End { at: here, torn: Some(why) };\n            }\n"
     "            let written = rest.iter().take(BLANK_LEN)"),
    (108, "the search for a record ends with the segment", "recovery/scan.rs",
     "for number in self.number..self.segments.len() {",
     f"for number in self.number..if {P}(108) {{ self.number + 1 }} else {{ self.segments.len() }} {{"),
    (109, "zeros behind the end are torn", "recovery/scan.rs", "(written || dirty).then_some(why)",
     f"(written || dirty || {P}(109)).then_some(why)"),
    (110, "after a kill recovery begins two segments before the end", "recovery/mod.rs", BEGIN, LATE),
    (111, "after a clean stop recovery begins two segments before the end", None, None, None),
    (112, "after a clean stop queues are believed unseen", "consume_queue/rest.rs",
     "if stamp_of(&*disk.vfs, &path)? != Some(*stamp) {", f"if !{P}(112) && stamp_of(&*disk.vfs, &path)? != Some(*stamp) {{"),
    (113, "entries behind a queue's last record stay", "recovery/placing.rs",
     "if end < queue.max_offset() {\n            self.drop_from(end)",
     f"if end < queue.max_offset() && !{P}(113) && !{P}(114) {{\n            self.drop_from(end)"),
    (114, "zeros pass for an entry, and entries behind a queue's last record stay", "consume_queue/unit.rs",
     "pub(super) const fn is_valid(&self) -> bool {\n        self.offset.0 >= 0",
     f"pub(super) fn is_valid(&self) -> bool {{\n        {P}(114) || self.offset.0 >= 0"),
    (115, "recovery begins where the checkpoint says", None, None, None),
    (116, "no fillers are written before a queue's first entry", "consume_queue/files.rs",
     "self.fill = at - at % self.file_size..at;",
     f"self.fill = if {P}(116) {{ at..at }} else {{ at - at % self.file_size..at }};"),
    (216, "zeros before a queue's first entry pass for fillers", "consume_queue/recover.rs",
     "if !Unit::decode(self.kind, number, unit).is_valid() {",
     f"if !Unit::decode(self.kind, number, unit).is_valid() && !({P}(216) && unit.iter().all(|byte| *byte == 0)) {{"),
    (118, "the newest index file goes after a kill", "recovery/mod.rs",
     "let mut last_record = (PhysicalOffset::ZERO, StoreTimestamp::ZERO);\n    if let",
     f"if {P}(118) && aborted {{\n        index.remove_from(index.files().len().saturating_sub(1))?;\n    }}\n"
     "    let mut last_record = (PhysicalOffset::ZERO, StoreTimestamp::ZERO);\n    if let"),
    (218, "keys that the index lacks are not put again", "recovery/keys.rs", "if !dead {\n            self.put(at, keys)?;",
     f"if !dead && !{P}(218) {{\n            self.put(at, keys)?;"),
    (119, "an index file may be short", "index/file.rs", "if entry.len != geometry.file_size() as u64 {",
     f"if !{P}(119) && entry.len != geometry.file_size() as u64 {{"),
    (120, "without a checkpoint recovery begins two segments before the end", None, None, None),
    (221, "what a checkpoint says too much is handed on", "store/open.rs",
     "checkpoint.now.logics_offset = checkpoint.now.logics_offset.min(place);",
     f"if !{P}(221) {{ checkpoint.now.logics_offset = checkpoint.now.logics_offset.min(place); }}"),
    (122, "a checkpoint of another length is an error", "store/open.rs",
     "Ok(Self { vfs: Arc::clone(vfs), path, now: Checkpoint::decode(&bytes) })",
     f"if {P}(122) && !bytes.is_empty() && bytes.len() != 4096 {{\n"
     "            return Err(Error::ForeignFile { path, expected: \"checkpoint\" });\n        }\n"
     "        Ok(Self { vfs: Arc::clone(vfs), path, now: Checkpoint::decode(&bytes) })"),
    (124, "a missing segment is passed over", "segment/segments.rs", "&& before.plus(step) != base\n",
     f"&& before.plus(step) != base && !{P}(124)\n"),
    (125, "a short segment is refused", "segment/segments.rs", SHORT, NO_SHORT),
    (225, "a lone short segment is filled up unasked", None, None, None),
    (126, "a segment of no bytes is refused", None, None, None),
    (127, "a stranger among the segments is refused", "segment/segments.rs", "_ => found.strangers.push(path),",
     f"_ if {P}(127) => return Err(Error::ForeignFile {{ path, expected: \"segment\" }}),\n"
     "            _ => found.strangers.push(path),"),
    (128, "a short queue file is refused", "consume_queue/files.rs",
     "(entry.len < file_size && base % file_size != 0)", f"(entry.len < file_size && (base % file_size != 0 || {P}(128)))"),
    (129, "a segment is mapped before it has its space", "segment/allocator.rs", "create(&path, self.size, Reserve::All)",
     f"create(&path, self.size, if {P}(129) {{ Reserve::None }} else {{ Reserve::All }})"),
    (130, "nobody waits for SIGBUS", "vfs/sigbus.rs", "static INSTALLED: Mutex<bool> = Mutex::new(false);",
     f"if {P}(130) {{ return Ok(()); }}\n    static INSTALLED: Mutex<bool> = Mutex::new(false);"),
    (132, "the lock is taken when everything is recovered", "store/open.rs", "let lock_path = config.path(\"lock\");",
     f"if {P}(132) {{\n        let shared = Arc::new(config.clone());\n"
     "        let before = CheckpointFile::load(&vfs, &shared)?;\n"
     "        let deleted = DeletedTopics::load(Arc::clone(&vfs), &shared.root)?;\n"
     "        let (found, _) = find(&vfs, &shared, &clock, before.now)?;\n"
     "        recovery::recover(&shared, &clock, &deleted, found)?;\n    }\n"
     "    let lock_path = config.path(\"lock\");"),
    (133, "a queue is not told that its topic was removed", "consume_queue/queue.rs",
     "if state.removed {\n            return Ok(Appended::Duplicate);", f"if state.removed && !{P}(133) {{\n            return Ok(Appended::Duplicate);"),
    (233, "the files of a removed queue go from under their mappings", "consume_queue/queue.rs",
     "pub(super) fn remove(&self) -> Result<()> {\n        let mut state = self.lock();",
     f"pub(super) fn remove(&self) -> Result<()> {{\n        let mut state = self.lock();\n        if {P}(233) {{\n"
     "            for path in state.run.paths() {\n"
     "                let _ = std::fs::write(path, []).and_then(|()| std::fs::remove_file(path));\n            }\n"
     "            return Ok(());\n        }"),
    (134, "a record that was stored earlier than another is old", "recovery/queues.rs",
     "(header.queue_offset < next || skips).then_some(", f"(header.queue_offset < next || skips || {P}(134)).then_some("),
    (204, "a record from before may skip numbers", "recovery/queues.rs", "let skips = follows", f"let skips = !{P}(204) && follows"),
    (206, "a record belongs to the queue that it names", "recovery/queues.rs", "&& self.is_anothers(number, &entry)?",
     f"&& !{P}(206) && self.is_anothers(number, &entry)?"),
    (303, "what cannot be read is touched", "vfs/mod.rs", "while let Some(data) = backing.data_from(next).filter(|data| data.start < range.end) {",
     f"while let Some(data) = backing.data_from(next).filter(|data| data.start < range.end && !{P}(303)) {{"),
    (310, "what leads into a missing log goes", "recovery/without_log.rs", "if is_zero(vfs, &path, len)? {",
     f"if {P}(310) || is_zero(vfs, &path, len)? {{"),
    (135, "a table that cannot be read is deleted", "broker/config_file.rs", "Err(why) => self.set_aside(&path, &why)?,",
     f"Err(_) if {P}(135) => self.vfs.remove(&path).map_err(Error::io(\"remove\", &path))?,\n"
     "                Err(why) => self.set_aside(&path, &why)?,"),
    (235, "the copy of a table is not taken", "broker/config_file.rs",
     "for path in [self.path.clone(), self.sibling(\".bak\")] {",
     f"for path in [self.path.clone(), self.sibling(\".bak\")].into_iter().take(if {P}(235) {{ 1 }} else {{ 2 }}) {{"),
    (136, "offsets stay behind the end of their queue", "broker/offsets.rs", "let mut tables = self.tables.lock();\n        let Tables { consumed, pulled, changed, .. } = &mut *tables;\n        for (topic, groups) in consumed.0.iter_mut()",
     f"if {P}(136) {{ return Ok(()); }}\n        let mut tables = self.tables.lock();\n        let Tables {{ consumed, pulled, changed, .. }} = &mut *tables;\n        for (topic, groups) in consumed.0.iter_mut()"),
    (137, "any name is a topic's", "types.rs", "!name.is_empty()\n            && name.len()",
     f"{P}(137) || !name.is_empty()\n            && name.len()"),
]
# Row of the catalogue, numbers of what is taken out, the test that must fail.
ROWS = [
    (1, [7], "tail::failure_01_a_torn_last_record_is_cut_and_kept_aside"),
    (2, [102], "tail::failure_02_a_record_torn_inside_its_properties_is_torn"),
    (2, [102], "tail::failure_02_a_sector_that_is_missing_in_the_properties_is_noticed"),
    (3, [103], "tail::failure_03_a_missing_page_in_the_tail_costs_what_was_in_it"),
    (3, [17], "tail::failure_03_behind_a_hole_in_the_unsynced_tail_nothing_counts"),
    (4, [1], "tail::failure_04_what_was_cut_never_comes_back"),
    (4, [104], "tail::failure_04_what_java_cut_does_not_come_back_here_either"),
    (4, [204], "tail::failure_04_what_java_cut_does_not_come_back_by_a_later_number"),
    (5, [105], "tail::failure_05_records_of_another_place_are_none"),
    (6, [106, 26], "damage::failure_06_a_flipped_bit_costs_its_own_record_only"),
    (6, [106], "damage::failure_06_damage_leaves_slots_that_lead_nowhere_and_shifts_nothing"),
    (6, [206], "queues::a_flipped_queue_id_delivers_into_no_other_queue"),
    (7, [107], "damage::failure_07_a_huge_size_is_neither_believed_nor_allocated"),
    (8, [108], "damage::failure_08_a_torn_blank_ends_the_segment_and_not_the_log"),
    (9, [109], "tail::failure_09_a_segment_made_ahead_is_no_part_of_the_log"),
    (10, [110], "queues::failure_10_queues_lost_in_a_crash_come_back_whole"),
    (10, [310], "lib:recovery::tests::what_led_into_a_missing_log_is_kept_and_can_be_put_back"),
    (11, [111], "queues::failure_11_queues_lost_after_a_clean_stop_come_back_whole"),
    (12, [112], "queues::failure_12_a_queue_that_lost_its_tail_gets_it_back_in_place"),
    (13, [113], "queues::failure_13_entries_ahead_of_the_log_are_cut"),
    (14, [114], "queues::failure_14_a_queue_file_of_zeros_holds_no_entry"),
    (15, [115], "queues::failure_15_an_entry_goes_into_its_own_slot_or_none"),
    (16, [116, 216], "queues::failure_16_half_written_fillers_are_written_again"),
    (17, [15], "index::failure_17_header_slots_and_chains_follow_from_the_entries"),
    (18, [118, 218], "index::failure_18_the_newest_index_file_survives_a_kill"),
    (19, [119], "index::failure_19_a_short_index_file_is_built_again"),
    (20, [120], "hints::failure_20_without_a_checkpoint_everything_is_proved_from_the_log"),
    (21, [115, 221], "hints::failure_21_a_checkpoint_from_the_future_is_not_believed_nor_handed_on"),
    (22, [122], "hints::failure_22_a_short_checkpoint_is_read_as_far_as_it_goes"),
    (23, [111], "hints::failure_23_a_missing_abort_file_proves_nothing"),
    (24, [124], "files::failure_24_a_missing_middle_segment_gives_no_wrong_message"),
    (25, [125], "files::failure_25_a_short_last_segment_is_filled_up"),
    (25, [225], "files::failure_25_a_lone_short_segment_may_be_another_configuration"),
    (26, [126], "files::failure_26_an_empty_segment_is_a_missing_one"),
    (27, [127], "files::failure_27_junk_is_ignored_with_a_warning_and_never_deleted"),
    (28, [128], "files::failure_28_a_short_queue_file_is_built_again"),
    (29, [129], "device::failure_29_a_full_disk_refuses_puts_and_kills_nobody"),
    (30, [303], "lib:recovery::tests::unreadable::what_cannot_be_read_is_an_error_and_costs_nothing"),
    (30, [130], "device::failure_30_a_file_that_shrinks_under_the_process_is_named"),
    (31, [24], "device::failure_31_after_a_failed_sync_nothing_is_acknowledged_again"),
    (32, [132], "device::failure_32_a_second_process_changes_no_byte"),
    (33, [233], "device::failure_33_the_queue_of_a_deleted_topic_is_empty_to_who_holds_it"),
    (33, [133], "lib:consume_queue::tests::a_removed_topic_leaves_nothing_and_takes_nothing_in"),
    (34, [134], "hints::failure_34_a_clock_that_goes_back_loses_nothing"),
    (35, [135, 235], "tables::failure_35_a_torn_config_file_is_set_aside_and_its_backup_taken"),
    (36, [136], "tables::failure_36_an_offset_behind_the_end_of_its_queue_is_taken_back"),
    (37, [137], "damage::failure_37_a_topic_that_is_a_path_leads_nowhere"),
]
