#![no_main]

use cigl::calibration::{Evaluator, Options, Recalibrator, Scores};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(recalibrator) = Recalibrator::from_json(text) else { return };
    let classes = recalibrator.classes();
    if classes > 1000 {
        return;
    }
    let probs = vec![1.0 / classes as f32; 2 * classes];
    let mut evaluator = Evaluator::recalibrated(recalibrator, Options::default());
    let _ = evaluator.add(Scores::Probs(&probs), &[0, classes as u32 - 1]);
});
