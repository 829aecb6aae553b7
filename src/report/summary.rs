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
