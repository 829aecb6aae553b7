//! The table at the end of a command: methods against accuracy, NLL, ECE and sparsity.

use super::table::Table;

/// Results of one method, one value per seed, all in the same order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MethodResults {
    /// The method's name.
    pub method: String,
    /// Accuracies as fractions.
    pub accuracy: Vec<f64>,
    /// Mean negative log-likelihoods in nats.
    pub nll: Vec<f64>,
    /// 15-bin expected calibration errors as fractions.
    pub ece: Vec<f64>,
    /// Realised sparsities as fractions.
    pub sparsity: Vec<f64>,
}

/// A row for each method; with several seeds mean ± standard deviation, and the number of seeds. ECE never stands alone: it
/// falls when accuracy collapses, so accuracy and NLL are always beside it.
pub fn table(results: &[MethodResults]) -> Table {
    let several = results.iter().any(|result| result.accuracy.len() > 1);
    let header = ["method", "seeds", "accuracy (%)", "NLL", "ECE (15 bins)", "sparsity (%)"];
    let mut table = Table::new(header.into_iter().filter(|name| several || *name != "seeds"));
    for result in results {
        let percent = |values: &[f64]| values.iter().map(|value| 100.0 * value).collect::<Vec<_>>();
        let mut cells = vec![result.method.clone()];
        if several {
            cells.push(result.accuracy.len().to_string());
        }
        cells.push(mean_and_sd(&percent(&result.accuracy), 2));
        cells.push(mean_and_sd(&result.nll, 3));
        cells.push(mean_and_sd(&result.ece, 4));
        cells.push(mean_and_sd(&percent(&result.sparsity), 2));
        table.row(cells);
    }
    table
}

/// "mean ± sd" with so many decimals; the sample standard deviation (n - 1), only from two values on; "-" for none.
pub fn mean_and_sd(values: &[f64], decimals: usize) -> String {
    match (mean(values), deviation(values)) {
        (None, _) => "-".into(),
        (Some(mean), None) => format!("{mean:.decimals$}"),
        (Some(mean), Some(sd)) => format!("{mean:.decimals$} ± {sd:.decimals$}"),
    }
}

/// The mean, where there are values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample standard deviation (n - 1), from two values on.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Half the width of the 95 % interval of the mean of values that are independent and normal, as over seeds; None for fewer than two
/// values. See [`half_width_of`].
pub fn half_width(values: &[f64]) -> Option<f64> {
    deviation(values).map(|sd| half_width_of(sd, values.len()))
}

/// Half the width of the 95 % interval of the mean of `n` > 1 values with standard deviation `sd`: t(97.5 %, n - 1) sd / sqrt(n) with
/// Student's t.
pub fn half_width_of(sd: f64, n: usize) -> f64 {
    let freedom = n.saturating_sub(1).max(1);
    // Beyond the table 1.96 + 2.4 / freedom is right to .002.
    let t = T.get(freedom - 1).copied().unwrap_or(1.96 + 2.4 / freedom as f64);
    t * sd / (n as f64).sqrt()
}

/// The 97.5 % quantiles of Student's t with 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The name of each row from its data set, network, method and sparsity: the method, and of the others those in which rows differ.
pub fn row_names(rows: &[[String; 4]]) -> Vec<String> {
    const METHOD: usize = 2;
    let said = |part: usize| part == METHOD || rows.iter().any(|parts| parts[part] != rows[0][part]);
    let name = |parts: &[String; 4]| {
        let parts: Vec<&str> = (0..4).filter(|&part| said(part)).map(|part| parts[part].as_str()).collect();
        parts.join(" ")
    };
    rows.iter().map(name).collect()
}

/// A fraction in percent with as many decimals as it has: `99.9` for .999.
pub fn percent(fraction: f64) -> String {
    // Rounded, for 100 times 0.07 is not 7.
    format!("{}", (1e8 * fraction).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The sample standard deviation of 2, 4, 4, 4, 5, 5, 7, 9 is sqrt(32 / 7).
    #[test]
    fn standard_deviations_divide_by_n_minus_one() {
        assert_eq!(mean_and_sd(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 3), "5.000 ± 2.138");
        assert_eq!(mean_and_sd(&[0.5], 2), "0.50");
        assert_eq!(mean_and_sd(&[], 2), "-");
    }

    // t(97.5 %, 7) = 2.365; 2.365 sqrt(32 / 7) / sqrt(8) = 1.788. Of 41 values with 40 degrees of freedom t is 2.021.
    #[test]
    fn intervals_are_students() {
        let half = half_width(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert!((half - 1.788).abs() < 1e-3, "{half}");
        assert_eq!((half_width(&[]), half_width(&[0.5])), (None, None));
        let values: Vec<f64> = (0..41).map(f64::from).collect();
        let sd = (41.0f64 * 42.0 / 12.0).sqrt();
        assert!((half_width(&values).unwrap() / (sd / 41.0f64.sqrt()) - 2.021).abs() < 2e-3);
    }

    #[test]
    fn rows_are_named_by_their_method_and_by_what_differs() {
        let row = |method: &str, sparsity: &str| ["digits", "mlp", method, sparsity].map(String::from);
        assert_eq!(row_names(&[row("rigl", "90 %"), row("cigl", "90 %")]), ["rigl", "cigl"]);
        assert_eq!(row_names(&[row("cigl", "90 %"), row("cigl", "95 %")]), ["cigl 90 %", "cigl 95 %"]);
        assert_eq!((percent(0.07), percent(0.999), percent(0.0)), ("7".into(), "99.9".into(), "0".into()));
    }

    #[test]
    fn one_seed_has_no_deviation_and_no_seeds_column() {
        let result = MethodResults {
            method: "CigL".into(),
            accuracy: vec![0.8323],
            nll: vec![0.467],
            ece: vec![0.0173],
            sparsity: vec![0.9],
        };
        let text = table(&[result]).to_string();
        assert!(!text.contains('±') && !text.contains("seeds"), "{text}");
        let cells: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(cells, ["CigL", "83.23", "0.467", "0.0173", "90.00"]);
    }
}
